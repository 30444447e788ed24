//! The process of a specification: arguments, environment, working directory, user.

use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime::{BoxBuilder, Spec};
use slipway_proto::runtime::v1 as cri;
use slipway_proto::slipway::v1::TerminalSize;
use slipway_runtime::{GroupsPolicy, User};

use super::Sources;
use crate::error::{Error, Result};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fills the process in; returns the environment variables whose values are not UTF-8.
pub(super) fn fill(spec: &mut Spec, sources: &Sources<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let image = sources.image_config();
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_terminal(Some(sources.config.tty));
    process.set_console_size(sources.extra.size.map(console_size).transpose()?);
    process.set_args(Some(arguments(sources, &image)?));
    let (text, raw) = environment(sources, &image)?;
    process.set_env(Some(text));
    process.set_cwd(directory(sources.config, &image)?.into());
    spec.set_process(Some(process));
    Ok(raw)
}

fn console_size(size: TerminalSize) -> Result<oci_spec::runtime::Box> {
    let built = BoxBuilder::default().width(size.width).height(size.height).build();
    built.map_err(|error| Error::invalid("size", error.to_string()))
}

/// Returns the arguments: a command replaces the image's entry point and arguments, while arguments alone replace
/// the image's arguments only.
fn arguments(sources: &Sources<'_>, image: &ImageConfig) -> Result<Vec<String>> {
    let config = sources.config;
    let of_image = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut all = if !config.command.is_empty() {
        config.command.clone()
    } else if !sources.extra.entrypoint.is_empty() {
        sources.extra.entrypoint.clone()
    } else {
        of_image(image.entrypoint())
    };
    let replaced = !config.command.is_empty() || !sources.extra.entrypoint.is_empty();
    if !config.args.is_empty() || replaced {
        all.extend(config.args.iter().cloned());
    } else {
        all.extend(of_image(image.cmd()));
    }
    if all.is_empty() {
        return Err(Error::invalid("config.command", "it is empty, and so is the image's"));
    }
    if all.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::invalid("config.command", "an argument holds a NUL"));
    }
    Ok(all)
}

type Environment = (Vec<String>, Vec<(String, Vec<u8>)>);

fn environment(sources: &Sources<'_>, image: &ImageConfig) -> Result<Environment> {
    let mut raw: Vec<(String, Vec<u8>)> = Vec::new();
    let mut all: Vec<String> = vec![PATH.to_owned()];
    let mut set = |pair: String| {
        let key = pair.split('=').next().unwrap_or_default().to_owned();
        match all.iter_mut().find(|known| known.split('=').next() == Some(key.as_str())) {
            Some(known) => *known = pair,
            None => all.push(pair),
        }
    };
    if sources.config.tty {
        set("TERM=xterm".to_owned());
    }
    if !sources.pod.hostname.is_empty() {
        set(format!("HOSTNAME={}", sources.pod.hostname));
    }
    for pair in image.env().clone().unwrap_or_default() {
        set(pair);
    }
    for (index, variable) in sources.config.envs.iter().enumerate() {
        let field = |name: &str| format!("config.envs[{index}].{name}");
        if variable.key.is_empty() || variable.key.contains(['=', '\0']) {
            return Err(Error::invalid(field("key"), format!("{:?} is no name of a variable", variable.key)));
        }
        if variable.value.contains(&0) {
            return Err(Error::invalid(field("value"), "it holds a NUL"));
        }
        raw.retain(|(key, _)| *key != variable.key);
        match std::str::from_utf8(&variable.value) {
            Ok(value) => set(format!("{}={value}", variable.key)),
            Err(_) => raw.push((variable.key.clone(), variable.value.clone())),
        }
    }
    Ok((all, raw))
}

fn directory(config: &cri::ContainerConfig, image: &ImageConfig) -> Result<String> {
    let of_image = image.working_dir().clone().unwrap_or_default();
    let wanted = if config.working_dir.is_empty() { of_image } else { config.working_dir.clone() };
    match wanted.as_str() {
        "" => Ok("/".to_owned()),
        path if path.starts_with('/') && !path.contains('\0') => Ok(wanted),
        path => Err(Error::invalid("config.working_dir", format!("{path:?} is no absolute path"))),
    }
}

/// Returns the user and groups of the process; names are looked up in the root file system when it starts.
pub(super) fn user(sources: &Sources<'_>) -> Result<User> {
    let context = sources.context().cloned().unwrap_or_default();
    let at = |name: &str| format!("config.linux.security_context.{name}");
    let id = |name: &str, value: i64| match u32::try_from(value) {
        // `setresuid(2)` takes -1, the greatest 32-bit number, as "unchanged", which would leave root.
        Ok(id) if i32::try_from(id).is_ok() => Ok(id),
        _ => Err(Error::invalid(at(name), format!("{value} is no id: ids go from 0 to 2147483647"))),
    };
    let by_id = context.run_as_user.as_ref().map(|user| id("run_as_user", user.value)).transpose()?;
    let group = context.run_as_group.as_ref().map(|group| id("run_as_group", group.value)).transpose()?;
    if by_id.is_some() && !context.run_as_username.is_empty() {
        return Err(Error::invalid(at("run_as_username"), "run_as_user is given too"));
    }
    let wanted =
        if context.run_as_username.is_empty() { &sources.extra.user } else { &context.run_as_username };
    let named =
        by_id.map(|id| id.to_string()).or_else(|| Some(wanted.clone()).filter(|name| !name.is_empty()));
    if group.is_some() && named.is_none() {
        return Err(Error::invalid(at("run_as_group"), "it needs run_as_user or run_as_username"));
    }
    let supplementary = context.supplemental_groups.iter().map(|group| id("supplemental_groups", *group));
    let groups = match cri::SupplementalGroupsPolicy::try_from(context.supplemental_groups_policy) {
        Ok(cri::SupplementalGroupsPolicy::Merge) => GroupsPolicy::Merge,
        Ok(cri::SupplementalGroupsPolicy::Strict) => GroupsPolicy::Strict,
        Err(_) => return Err(Error::invalid(at("supplemental_groups_policy"), "there is no such policy")),
    };
    Ok(User {
        name: named.or_else(|| sources.image_config().user().clone()).unwrap_or_default(),
        group,
        supplementary: supplementary.collect::<Result<_>>()?,
        groups,
    })
}
