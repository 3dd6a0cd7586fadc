//! The image labels that describe an extension.
//!
//! None of them prevents an install: Docker's own samples leave some empty and some out. What is missing matters to a
//! marketplace, and all of it is the publisher's text, not to be trusted.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde_json::Value;

use super::json::shown;
use crate::model::problem::{Problem, Severity};

/// Version of Docker Desktop's extension API that the broker stands in for; `docker extension version` calls it the
/// server API version.
pub const SERVER_API_VERSION: Version = Version::new(0, 4, 2);

const TITLE: &str = "org.opencontainers.image.title";
const DESCRIPTION: &str = "org.opencontainers.image.description";
const VENDOR: &str = "org.opencontainers.image.vendor";
const API_VERSION: &str = "com.docker.desktop.extension.api.version";
/// Its name in 2021.
const OLD_API_VERSION: &str = "com.docker.desktop.plugin.api.version";

/// The labels that tell an extension from another image (F19).
const CORE: &[(&str, &str)] = &[
    (TITLE, "its name"),
    (DESCRIPTION, "one line about it"),
    (VENDOR, "its publisher"),
    (API_VERSION, "the API versions it works with, such as `>= 0.3.4`"),
];

/// The labels that a marketplace asks for besides, and the optional ones (F20, F21).
const MARKETPLACE: &[Label] = &[
    Label { name: "com.docker.desktop.extension.icon", required: true, form: Form::Url },
    Label { name: "com.docker.extension.screenshots", required: true, form: Form::List(&["alt", "url"]) },
    Label { name: "com.docker.extension.detailed-description", required: true, form: Form::Text },
    Label { name: "com.docker.extension.publisher-url", required: true, form: Form::Url },
    Label { name: "com.docker.extension.changelog", required: true, form: Form::Text },
    Label { name: "com.docker.extension.additional-urls", required: false, form: Form::List(&["title", "url"]) },
    Label { name: "com.docker.extension.account-info", required: false, form: Form::Words(&["required"]) },
    Label { name: "com.docker.extension.categories", required: false, form: Form::Words(CATEGORIES) },
];

/// The categories of Docker's marketplace.
const CATEGORIES: &[&str] = &[
    "ci-cd",
    "container-orchestration",
    "cloud-deployment",
    "cloud-development",
    "database",
    "kubernetes",
    "networking",
    "image-registry",
    "security",
    "testing-tools",
    "utility-tools",
    "volumes",
];

struct Label {
    name: &'static str,
    required: bool,
    form: Form,
}

/// What a label's text must look like.
enum Form {
    /// Anything.
    Text,
    /// A web address.
    Url,
    /// A JSON array of objects with these members, all texts.
    List(&'static [&'static str]),
    /// Words out of these, separated by commas.
    Words(&'static [&'static str]),
}

/// What an API label asks for.
#[derive(Debug, PartialEq, Eq)]
enum Demand {
    /// The broker's API version is one of those asked for.
    Met,
    /// It is not.
    Unmet,
    /// It cannot be read; a build argument that was never filled in, mostly.
    Opaque,
}

/// The title label, trimmed; `None` where it is missing or empty.
pub fn title(labels: &BTreeMap<String, String>) -> Option<&str> {
    filled(labels, TITLE)
}

/// The description label, trimmed; `None` where it is missing or empty.
pub fn description(labels: &BTreeMap<String, String>) -> Option<&str> {
    filled(labels, DESCRIPTION)
}

/// The vendor label, trimmed; `None` where it is missing or empty.
pub fn vendor(labels: &BTreeMap<String, String>) -> Option<&str> {
    filled(labels, VENDOR)
}

/// What is wrong with an image's labels; never an error.
pub fn check(labels: &BTreeMap<String, String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, meaning) in CORE {
        match labels.get(*name) {
            Some(text) if !text.trim().is_empty() => {}
            Some(_) => problems.push(note(name, format!("label is empty; it holds {meaning}"))),
            None if *name == API_VERSION && labels.contains_key(OLD_API_VERSION) => {
                problems.push(note(OLD_API_VERSION, format!("label is called {API_VERSION} today")));
            }
            None => problems.push(warning(name, format!("label is missing; it holds {meaning}"))),
        }
    }
    problems
        .extend(filled(labels, API_VERSION).or_else(|| filled(labels, OLD_API_VERSION)).and_then(check_api_version));
    problems.extend(MARKETPLACE.iter().filter_map(|label| check_marketplace(label, labels)));
    problems
}

fn filled<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    labels.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn check_api_version(text: &str) -> Option<Problem> {
    match demand(text) {
        Demand::Met => None,
        Demand::Unmet => Some(warning(
            API_VERSION,
            format!("label asks for the API {}; this is {SERVER_API_VERSION}, so parts may not work", shown(text)),
        )),
        Demand::Opaque => Some(note(
            API_VERSION,
            format!("label {} is neither a version nor a constraint such as `>= 0.3.4`; it is ignored", shown(text)),
        )),
    }
}

/// Reads the label as leniently as its authors write it: `0.3.4`, `>= 0.3.3`, `>=0.2.x`, `>= 1.4.7, < 2.0`.
///
/// A bare version is the oldest that will do, not the only one: half of the real extensions name just the one they were
/// written for, and Docker Desktop installs them with later ones.
fn demand(text: &str) -> Demand {
    let comparators: Vec<String> = text.split(',').map(comparator).collect();
    match VersionReq::parse(&comparators.join(", ")) {
        Ok(wanted) if wanted.matches(&SERVER_API_VERSION) => Demand::Met,
        Ok(_) => Demand::Unmet,
        Err(_) => Demand::Opaque,
    }
}

/// One comparator as `semver` reads it: with an operator, without a leading `v` or wildcard parts at its end.
fn comparator(text: &str) -> String {
    let text = text.trim();
    let (operator, version) = text.split_at(text.find(|c| !"<>=~^".contains(c)).unwrap_or(text.len()));
    let mut version = version.trim().trim_start_matches(['v', 'V']);
    while let Some(shorter) = [".x", ".X", ".*"].iter().find_map(|wildcard| version.strip_suffix(wildcard)) {
        version = shorter;
    }
    let operator = if operator.is_empty() { ">=" } else { operator };
    format!("{operator}{version}")
}

fn check_marketplace(label: &Label, labels: &BTreeMap<String, String>) -> Option<Problem> {
    let Some(text) = filled(labels, label.name) else {
        let how = if labels.contains_key(label.name) { "empty" } else { "missing" };
        return label.required.then(|| note(label.name, format!("label is {how}; a marketplace asks for it")));
    };
    let fault = match label.form {
        Form::Text => None,
        Form::Url => (!is_web_address(text)).then(|| "is no https:// or http:// address".to_owned()),
        Form::List(members) => list_fault(text, members),
        Form::Words(words) => {
            let unknown = text.split(',').map(str::trim).find(|word| !word.is_empty() && !words.contains(word));
            unknown.map(|word| format!("holds {}; the words are {}", shown(word), words.join(", ")))
        }
    };
    fault.map(|fault| note(label.name, format!("label {fault}")))
}

fn is_web_address(text: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

fn list_fault(text: &str, members: &[&str]) -> Option<String> {
    let wanted = format!("must be a JSON array of objects with {}", members.join(" and "));
    let elements = match serde_json::from_str(text) {
        Ok(Value::Array(elements)) => elements,
        Ok(_) => return Some(wanted),
        Err(error) => return Some(format!("{wanted}; {error}")),
    };
    let complete = |element: &Value| members.iter().all(|member| element.get(member).is_some_and(Value::is_string));
    elements.iter().position(|element| !complete(element)).map(|index| format!("{wanted}; element {index} is not"))
}

fn warning(label: &str, message: String) -> Problem {
    Problem::new(Severity::Warning, "", label, message)
}

fn note(label: &str, message: String) -> Problem {
    Problem::new(Severity::Note, "", label, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn complete() -> BTreeMap<String, String> {
        labels(&[
            (TITLE, " Tailscale & 'friends' "),
            (DESCRIPTION, "one line"),
            (VENDOR, "somebody"),
            (API_VERSION, ">= 0.3.4"),
            ("com.docker.desktop.extension.icon", "https://example.com/icon.svg"),
            ("com.docker.extension.screenshots", r#"[{"alt":"a \"quoted\" one","url":"https://example.com/1.png"}]"#),
            ("com.docker.extension.detailed-description", "<h1>HTML</h1>"),
            ("com.docker.extension.publisher-url", "https://example.com"),
            ("com.docker.extension.changelog", "<ul><li>more</li></ul>"),
        ])
    }

    fn with(name: &str, text: &str) -> Vec<Problem> {
        let mut labels = complete();
        labels.insert(name.to_owned(), text.to_owned());
        check(&labels)
    }

    #[test]
    fn a_complete_set_is_fine() {
        assert_eq!(check(&complete()), []);
        assert_eq!(title(&complete()), Some("Tailscale & 'friends'"));
        assert_eq!(description(&complete()), Some("one line"));
        assert_eq!(vendor(&complete()), Some("somebody"));
        assert_eq!(vendor(&labels(&[(VENDOR, "  ")])), None);
        assert_eq!(vendor(&labels(&[])), None);
    }

    #[test]
    fn missing_labels_never_prevent_an_install() {
        let problems = check(&labels(&[]));
        let of = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        assert_eq!((of(Severity::Error), of(Severity::Warning), of(Severity::Note)), (0, 4, 5));
        assert_eq!(problems[0].to_string(), format!("{TITLE}: label is missing; it holds its name"));
    }

    #[test]
    fn empty_labels_are_tolerated() {
        let empty: BTreeMap<_, _> = complete().into_keys().map(|name| (name, String::new())).collect();
        let problems = check(&empty);
        assert_eq!(problems.len(), 9);
        assert!(problems.iter().all(|problem| problem.severity == Severity::Note), "{problems:?}");
        for optional in ["additional-urls", "account-info", "categories"] {
            assert_eq!(with(&format!("com.docker.extension.{optional}"), ""), []);
        }
    }

    #[test]
    fn every_api_version_that_real_extensions_write_is_understood() {
        for (text, demanded) in [
            (">= 0.2.3", Demand::Met),
            ("0.3.4", Demand::Met),
            ("0.3.0", Demand::Met),
            ("0.3.3", Demand::Met),
            (">= 0.2.0", Demand::Met),
            ("0.4.2", Demand::Met),
            (">= 0.3.4", Demand::Met),
            ("1.0.0-beta.1", Demand::Unmet),
            (">=0.2.x", Demand::Met),
            (">= 0.0.1", Demand::Met),
            ("0.1.0", Demand::Met),
            ("${DD_API_VERSION}", Demand::Opaque),
            ("${DD_VERSION}", Demand::Opaque),
            (">= 1.4.7, < 2.0", Demand::Unmet),
            (">= 0.3.3, < 2.0", Demand::Met),
            ("< 0.4", Demand::Unmet),
            ("^0.3.4", Demand::Unmet),
            ("~0.4", Demand::Met),
            ("v0.3.4", Demand::Met),
            ("0.3", Demand::Met),
            ("0.5", Demand::Unmet),
            ("x", Demand::Opaque),
            ("latest", Demand::Opaque),
            (",", Demand::Opaque),
            (">= 99999999999999999999.0", Demand::Opaque),
        ] {
            assert_eq!(demand(text), demanded, "{text:?}");
        }
    }

    #[test]
    fn an_unmet_api_version_warns_and_an_unreadable_one_is_noted() {
        let [problem] = &with(API_VERSION, "1.0.0-beta.1")[..] else { panic!("one problem") };
        assert_eq!((problem.severity, problem.field.as_str()), (Severity::Warning, API_VERSION));
        assert!(problem.message.contains("0.4.2"), "{problem}");
        let [problem] = &with(API_VERSION, "${DD_API_VERSION}")[..] else { panic!("one problem") };
        assert_eq!(problem.severity, Severity::Note);
    }

    #[test]
    fn the_label_of_2021_still_counts() {
        let mut labels = complete();
        labels.remove(API_VERSION);
        labels.insert(OLD_API_VERSION.into(), "9.0.0".into());
        let severities: Vec<_> = check(&labels).iter().map(|problem| problem.severity).collect();
        assert_eq!(severities, [Severity::Note, Severity::Warning]);
    }

    #[test]
    fn forms_are_checked_and_only_noted() {
        for (name, text, part) in [
            ("com.docker.extension.screenshots", "none", "JSON array of objects with alt and url"),
            ("com.docker.extension.screenshots", "{}", "JSON array"),
            ("com.docker.extension.screenshots", r#"[{"alt":"a"}]"#, "element 0 is not"),
            ("com.docker.extension.additional-urls", r#"[{"title":1,"url":""}]"#, "title and url"),
            ("com.docker.extension.publisher-url", "javascript:alert(1)", "https://"),
            ("com.docker.desktop.extension.icon", "icon.svg", "https://"),
            ("com.docker.extension.account-info", "maybe", "required"),
            ("com.docker.extension.categories", "database,fun", "\"fun\""),
        ] {
            let [problem] = &with(name, text)[..] else { panic!("one problem for {name} {text}") };
            assert_eq!((problem.severity, problem.field.as_str()), (Severity::Note, name));
            assert!(problem.message.contains(part), "{problem}");
        }
        assert_eq!(with("com.docker.extension.categories", "database, utility-tools"), []);
        assert_eq!(with("com.docker.extension.account-info", "required"), []);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", version in "[<>=~^!]{0,2} ?[0-9xv.*, -]{0,12}") {
            for name in complete().into_keys() {
                let problems = with(&name, &text);
                prop_assert!(problems.iter().all(|problem| !problem.is_error()));
            }
            let _ = demand(&version);
        }
    }
}
