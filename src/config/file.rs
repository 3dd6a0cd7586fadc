//! The configuration file: TOML, read into texts with the line each comes from. Unknown keys are mistakes.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Mistake, value::suggestion};

/// Keys at the top.
const KEYS: &[&str] = &[
    "socket",
    "data_dir",
    "runtime_dir",
    "engine",
    "engine_tls_dir",
    "engine_files",
    "drain_timeout",
    "connect_timeout",
    "head_timeout",
    "idle_timeout",
    "total_timeout",
    "ready_timeout",
    "max_body_bytes",
    "audit",
    "metrics_socket",
    "host_programs",
    "otlp_endpoint",
    "log",
    "system",
];
/// Keys below `[log]`.
const LOG_KEYS: &[&str] = &["filter", "format"];
/// Keys below `[system]`.
const SYSTEM_KEYS: &[&str] = &["enabled", "group", "allowed_users", "allowed_groups", "trust_users"];
/// The tables, with the keys below each.
const TABLES: [(&str, &[&str]); 2] = [("log", LOG_KEYS), ("system", SYSTEM_KEYS)];
/// Keys whose values are true or false.
const SWITCHES: [&str; 3] = ["host_programs", "system.enabled", "system.trust_users"];
/// Keys whose values are lists.
const LISTS: [&str; 2] = ["system.allowed_users", "system.allowed_groups"];

/// Every key, those below `[log]` as `log.format`.
pub fn keys() -> impl Iterator<Item = String> {
    let is_table = |key: &str| TABLES.iter().any(|(table, _)| *table == key);
    let at_top = KEYS.iter().filter(move |key| !is_table(key)).map(|key| (*key).to_owned());
    at_top.chain(TABLES.iter().flat_map(|(table, keys)| keys.iter().map(move |key| format!("{table}.{key}"))))
}

/// One setting out of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The key with its table, such as `log.format`.
    pub(super) key: String,
    /// The value as text.
    pub(super) text: String,
    /// `<file>:<line>`.
    pub(super) origin: String,
}

/// Reads the file; what can be read is, also behind a mistake.
pub(super) fn read(path: &Path, content: &str, mistakes: &mut Vec<Mistake>) -> Vec<Setting> {
    let (table, errors) = DeTable::parse_recoverable(content);
    let mut reader = Reader { path, content, found: Vec::new(), settings: Vec::new() };
    for error in errors {
        reader.mistake(error.span().map_or(0, |span| span.start), error.message().to_owned());
    }
    reader.table("", table.get_ref(), KEYS);
    // The reader goes through them by name.
    reader.found.sort_by_key(|(at, _)| *at);
    mistakes.extend(reader.found.into_iter().map(|(_, mistake)| mistake));
    reader.settings
}

struct Reader<'a> {
    path: &'a Path,
    content: &'a str,
    /// Mistakes and where in the text they are.
    found: Vec<(usize, Mistake)>,
    settings: Vec<Setting>,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>, known: &[&str]) {
        for (key, value) in table {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            let shown = format!("{prefix}{name}");
            match value.get_ref() {
                _ if !known.contains(&name) => {
                    self.mistake(at, format!("unknown key {shown}{}", suggestion(name, known)));
                }
                found => match (TABLES.iter().find(|(table, _)| *table == shown), found) {
                    (Some((table, keys)), DeValue::Table(inner)) => self.table(&format!("{table}."), inner, keys),
                    (Some((table, keys)), _) => {
                        let keys = keys.join(", ");
                        self.mistake(
                            at,
                            format!("{table} is a table; write [{table}] and below it keys such as {keys}"),
                        )
                    }
                    (None, DeValue::Array(list)) if LISTS.contains(&&*shown) => self.list(shown, at, list),
                    (None, _) => self.scalar(shown, at, value),
                },
            }
        }
    }

    fn scalar(&mut self, key: String, at: usize, value: &Spanned<DeValue<'_>>) {
        let (is_number, is_switch) = (key == "max_body_bytes", SWITCHES.contains(&&*key));
        let text = match value.get_ref() {
            DeValue::String(text) if !is_number && !is_switch => text.to_string(),
            DeValue::Boolean(on) if is_switch => on.to_string(),
            DeValue::Integer(number) if is_number && number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Integer(number) if key.ends_with("_timeout") => {
                return self.mistake(at, format!("{key} needs a unit; write \"{}s\"", number.as_str()));
            }
            other => {
                let wanted = match (is_number, is_switch) {
                    (true, _) => "a whole decimal number",
                    (_, true) => "true or false",
                    _ if LISTS.contains(&&*key) => "a list of names in quotes and numbers",
                    _ => "a string in quotes",
                };
                return self.mistake(at, format!("{key} is {}; write {wanted}", type_name(other)));
            }
        };
        let origin = format!("{}: {key}", self.place(at));
        self.settings.push(Setting { key, text, origin });
    }

    /// A list of names and numbers, as the text that says it elsewhere.
    fn list(&mut self, key: String, at: usize, list: &[Spanned<DeValue<'_>>]) {
        let text = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
            other => Err(type_name(other)),
        };
        match list.iter().map(text).collect::<Result<Vec<_>, _>>() {
            Ok(texts) => {
                let origin = format!("{}: {key}", self.place(at));
                self.settings.push(Setting { key, text: texts.join(" "), origin });
            }
            Err(found) => self.mistake(at, format!("{key} holds {found}; write names in quotes, or numbers")),
        }
    }

    fn mistake(&mut self, at: usize, text: String) {
        let origin = self.place(at);
        self.found.push((at, Mistake { origin, text }));
    }

    fn place(&self, at: usize) -> String {
        let line = self.content.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        format!("{}:{line}", self.path.display())
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
