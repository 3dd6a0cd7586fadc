//! What an object's labels prove. Anybody can write labels, and copy ours: only a signature that fits the very object says
//! that the broker had it made.

use std::collections::HashMap;

use super::{Broker, names::aside_name};
use crate::{
    engine::{Container, ContainerDetails, Network, Volume},
    model::{
        extension::{Maker, ResourceKind},
        labels,
        reference::ExtensionId,
        signature::{Key, Mark},
    },
};

/// An object of the engine with its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marked<'a> {
    pub(super) kind: ResourceKind,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: &'a HashMap<String, String>,
}

impl<'a> From<&'a Container> for Marked<'a> {
    fn from(it: &'a Container) -> Self {
        Marked { kind: ResourceKind::Container, id: &it.id, name: &it.name, labels: &it.labels }
    }
}

impl<'a> From<&'a ContainerDetails> for Marked<'a> {
    fn from(it: &'a ContainerDetails) -> Self {
        Marked { kind: ResourceKind::Container, id: &it.id, name: &it.name, labels: &it.labels }
    }
}

impl<'a> From<&'a Network> for Marked<'a> {
    fn from(it: &'a Network) -> Self {
        Marked { kind: ResourceKind::Network, id: &it.id, name: &it.name, labels: &it.labels }
    }
}

impl<'a> From<&'a Volume> for Marked<'a> {
    fn from(it: &'a Volume) -> Self {
        Marked { kind: ResourceKind::Volume, id: &it.name, name: &it.name, labels: &it.labels }
    }
}

/// What was proved of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof<'a> {
    pub(super) extension: ExtensionId,
    pub(super) generation: i64,
    /// Who asked the engine for it. What an extension asked for may have any name, and its nonce is its own.
    pub(super) maker: Maker,
    pub(super) nonce: &'a str,
}

/// Whose an object is, or why that is not proved.
pub(super) fn proof<'a>(key: &Key, object: &Marked<'a>) -> Result<Proof<'a>, &'static str> {
    let label = |name: &str| object.labels.get(name).map_or("", String::as_str);
    let signature = object.labels.get(labels::SIGNATURE).ok_or("it bears no signature")?;
    let extension: ExtensionId = label(labels::EXTENSION).parse().map_err(|_| "it names no extension")?;
    let nonce = label(labels::NONCE);
    let generation = label(labels::GENERATION).parse().unwrap_or(0);
    let fits = |name: &str| {
        let mark = Mark { kind: object.kind, extension: extension.as_str(), generation, name, nonce };
        key.verifies(&mark, signature)
    };
    let maker = if names(object).iter().any(|name| fits(name)) {
        Maker::Broker
    } else if !nonce.is_empty() && fits("") {
        Maker::Extension
    } else {
        return Err("its signature does not fit it");
    };
    Ok(Proof { extension, generation, maker, nonce })
}

/// The names that an object may have been signed for.
fn names(object: &Marked<'_>) -> Vec<String> {
    let name = object.name;
    let mut names = vec![name.to_owned()];
    if object.kind != ResourceKind::Container {
        return names;
    }
    // Compose numbers the containers of a service.
    if let Some((service, number)) = name.rsplit_once('-')
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        names.push(service.to_owned());
    }
    // One of an old generation, whose name an update took.
    if *name == aside_name(object.id)
        && let (Some(project), Some(service)) = (object.labels.get(labels::PROJECT), object.labels.get(labels::SERVICE))
    {
        names.extend([format!("{project}-{service}"), format!("{project}-service")]);
    }
    names
}

impl Broker {
    /// Whether an object proves that it was made under one of these nonces.
    pub(super) fn is_made_under(&self, object: &Marked<'_>, is_meant: impl Fn(&str) -> bool) -> bool {
        object.labels.get(labels::NONCE).is_some_and(|nonce| is_meant(nonce)) && proof(&self.key, object).is_ok()
    }

    /// Whether a volume bears the label of that extension. Where there are several users, another's extension of the same
    /// id has the same label, and only the signature tells whose it is.
    pub(super) fn bears(&self, volume: &Volume, id: &ExtensionId) -> bool {
        let is_proved = || !self.behalf.is_one_of_several() || proof(&self.key, &volume.into()).is_ok();
        volume.labels.get(labels::EXTENSION).is_some_and(|owner| owner == id.as_str()) && is_proved()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    /// Name and labels of an object that was signed for some name.
    fn signed(kind: ResourceKind, signed_for: &str, nonce: &str, generation: i64) -> HashMap<String, String> {
        let mark = Mark { kind, extension: "a/b", generation, name: signed_for, nonce };
        let labels = [
            (labels::EXTENSION, "a/b".to_owned()),
            (labels::GENERATION, generation.to_string()),
            (labels::NONCE, nonce.to_owned()),
            (labels::SERVICE, "web".to_owned()),
            (labels::PROJECT, "a_b-desktop-extension".to_owned()),
            (labels::SIGNATURE, Key::new(KEY).sign(&mark)),
        ];
        labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn maker(kind: ResourceKind, name: &str, labels: &HashMap<String, String>) -> Result<Maker, &'static str> {
        proof(&Key::new(KEY), &Marked { kind, id: "0123", name, labels }).map(|proof| proof.maker)
    }

    #[test]
    fn what_is_signed_for_its_name_is_ours_and_a_copy_is_not() {
        use ResourceKind::{Container, Network, Volume};
        let web = signed(Container, "p-web", "n", 1);
        assert_eq!(maker(Container, "p-web", &web), Ok(Maker::Broker));
        assert_eq!(maker(Container, "p-web-2", &web), Ok(Maker::Broker));
        assert_eq!(maker(Network, "p_default", &signed(Network, "p_default", "n", 0)), Ok(Maker::Broker));
        assert_eq!(maker(Volume, "p_data", &signed(Volume, "p_data", "", 0)), Ok(Maker::Broker));
        let wrong = Err("its signature does not fit it");
        assert_eq!(maker(Container, "other", &web), wrong);
        assert_eq!(maker(Network, "p-web", &web), wrong);
        assert_eq!(maker(Network, "p_default-2", &signed(Network, "p_default", "n", 0)), wrong);
        assert_eq!(maker(Volume, "v", &signed(Volume, "", "", 0)), wrong, "without a nonce everybody would fit");
        let mut other = web;
        other.insert(labels::EXTENSION.into(), "a/c".into());
        assert_eq!(maker(Container, "p-web", &other), wrong);
        other.remove(labels::SIGNATURE);
        assert_eq!(maker(Container, "p-web", &other), Err("it bears no signature"));
    }

    #[test]
    fn what_an_extension_named_and_what_an_update_set_aside_are_known() {
        let made = signed(ResourceKind::Container, "", "n", 1);
        assert_eq!(maker(ResourceKind::Container, "theirs", &made), Ok(Maker::Extension));
        let aside = signed(ResourceKind::Container, "a_b-desktop-extension-web", "n", 1);
        assert_eq!(maker(ResourceKind::Container, &aside_name("0123"), &aside), Ok(Maker::Broker));
    }
}
