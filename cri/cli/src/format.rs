//! The formats of lists and states: `--output`.

/// The format of a list or a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "go-template" => Err("go-template is not served: use json, and jq to pick from it".to_owned()),
            other => Err(format!("output format {other} is not known: use json, yaml or table")),
        }
    }
}
