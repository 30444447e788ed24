//! `--filter` on a list of images.

use regex_lite::Regex;
use slipway_proto::runtime::v1::Image;

use crate::error::{Error, Result};

/// The images that pass all filters, which are applied one after another.
pub(super) fn apply(mut images: Vec<Image>, filters: &[String]) -> Result<Vec<Image>> {
    for filter in filters {
        images = match filter.split_once('=') {
            Some(("dangling", value)) => dangling(images, value)?,
            Some(("reference", pattern)) => reference(images, pattern)?,
            Some(("since", image)) => {
                let end = position(&images, image);
                images.into_iter().take(end).collect()
            }
            Some(("before", image)) => {
                let after = position(&images, image).saturating_add(1);
                let known = after <= images.len();
                images.into_iter().skip(if known { after } else { 0 }).collect()
            }
            _ => {
                return Err(Error::Usage(format!(
                    "unknown filter {filter}: use dangling, reference, before or since"
                )));
            }
        };
    }
    Ok(images)
}

fn dangling(images: Vec<Image>, value: &str) -> Result<Vec<Image>> {
    let wanted = match value {
        "true" => true,
        "false" => false,
        other => return Err(Error::Usage(format!("dangling={other}: write true or false"))),
    };
    Ok(images.into_iter().filter(|image| image.repo_tags.is_empty() == wanted).collect())
}

/// The images whose repository fits the pattern, or whose tags do where an image has no digest.
fn reference(images: Vec<Image>, pattern: &str) -> Result<Vec<Image>> {
    let regex = Regex::new(pattern)
        .map_err(|error| Error::Usage(format!("reference={pattern} does not parse: {error}")))?;
    let fits = |image: &Image| match image.repo_digests.first().and_then(|name| name.split_once('@')) {
        Some((name, _)) => regex.is_match(name),
        None => image.repo_tags.iter().any(|tag| regex.is_match(tag)),
    };
    Ok(images.into_iter().filter(fits).collect())
}

/// The index of an image in the list; the list's length when it is not there.
fn position(images: &[Image], wanted: &str) -> usize {
    let is_it = |image: &Image| match (wanted.contains('@'), wanted.contains(':')) {
        (true, _) => image.repo_digests.first().is_some_and(|digest| digest.starts_with(wanted)),
        (false, true) => image.repo_tags.first().is_some_and(|tag| tag == wanted) || image.id == wanted,
        (false, false) => image.id.trim_start_matches("sha256:").starts_with(wanted),
    };
    images.iter().position(is_it).unwrap_or(images.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(filters: &[&str]) -> Result<Vec<String>> {
        let image = |id: &str, tag: Option<&str>, digest: Option<&str>| Image {
            id: format!("sha256:{id}"),
            repo_tags: tag.map(str::to_owned).into_iter().collect(),
            repo_digests: digest.map(str::to_owned).into_iter().collect(),
            ..Image::default()
        };
        let images = vec![
            image("a1", Some("h/one:1"), None),
            image("b2", Some("h/two:1"), Some("h/two@sha256:77")),
            image("c3", None, Some("h/three@sha256:88")),
        ];
        let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        Ok(apply(images, &filters)?.into_iter().map(|image| image.id.replace("sha256:", "")).collect())
    }

    #[test]
    fn filters_are_applied_one_after_another() {
        for (filters, expected) in [
            (&["dangling=true"][..], &["c3"][..]),
            (&["dangling=false"], &["a1", "b2"]),
            (&["reference=t.*"], &["b2", "c3"]),
            (&["reference=one"], &["a1"]),
            (&["since=h/two:1"], &["a1"]),
            (&["before=h/two:1"], &["c3"]),
            (&["before=b"], &["c3"]),
            (&["since=h/three@sha256:88"], &["a1", "b2"]),
            (&["reference=t", "dangling=false"], &["b2"]),
        ] {
            assert_eq!(passing(filters).unwrap(), expected, "{filters:?}");
        }
        for wrong in ["size=1", "dangling=maybe", "reference=(", "x"] {
            assert!(passing(&[wrong]).is_err(), "{wrong}");
        }
    }
}
