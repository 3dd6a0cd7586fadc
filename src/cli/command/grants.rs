//! `longshore grants`.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        table::Table,
        view::grant::{GrantView, GrantsView},
    },
    pb,
};

/// Arguments of `grants`.
#[derive(Debug, Args)]
#[command(after_help = "\
Grants: engine.read, engine.full, engine.bind:<path>, host.exec:<name>, host.exec:any,
backend.privileged, env:<NAME>. A denial wins over everything, and what is no
longer allowed ends at once.")]
pub struct Grants {
    /// Extension whose grants to show or change
    pub(super) extension: String,
    /// Allow this; can be given again
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// Deny this, whatever else allows it; can be given again
    #[arg(long, value_name = "NAME")]
    deny: Vec<String>,
    /// Take back the decision about this; can be given again
    #[arg(long, value_name = "NAME")]
    forget: Vec<String>,
}

impl Grants {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let broker = Connection::open(options).await?;
        let mut grants = self.get(&broker).await?;
        if self.changes() {
            broker.grants().set(self.set_request(&grants.grants)).await?;
            grants = self.get(&broker).await?;
        }
        match console.wants_json() {
            true => console.print_json(&grants).await?,
            false => console.print(&table(&grants)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn changes(&self) -> bool {
        [&self.allow, &self.deny, &self.forget].iter().any(|names| !names.is_empty())
    }

    async fn get(&self, broker: &Connection) -> Result<GrantsView, Failure> {
        let request = pb::GrantServiceGetRequest { extension: self.extension.clone() };
        Ok(GrantsView::of(&self.extension, broker.grants().get(request).await?.into_inner()))
    }

    /// All decisions as they shall be: those there are, changed by the arguments. Denials are applied last: they win.
    fn set_request(&self, current: &[GrantView]) -> pb::GrantServiceSetRequest {
        let decided = |decision: &str| -> BTreeSet<String> {
            current.iter().filter(|grant| grant.decision == decision).map(|grant| grant.name.clone()).collect()
        };
        let (mut allow, mut deny) = (decided("allow"), decided("deny"));
        for name in &self.forget {
            allow.remove(name);
            deny.remove(name);
        }
        for name in &self.allow {
            deny.remove(name);
            allow.insert(name.clone());
        }
        for name in &self.deny {
            allow.remove(name);
            deny.insert(name.clone());
        }
        pb::GrantServiceSetRequest {
            extension: self.extension.clone(),
            allow: allow.into_iter().collect(),
            deny: deny.into_iter().collect(),
        }
    }
}

fn table(grants: &GrantsView) -> String {
    let mut table = Table::new(["GRANT", "DECISION", "NEEDED BY", "LETS IT"]);
    for grant in &grants.grants {
        let need = grants.needed.iter().find(|need| need.name == grant.name);
        let (origin, summary) = need.map_or(("-".to_owned(), ""), |need| (need.place(), need.summary.as_str()));
        table.add([&grant.name, &grant.decision, &origin, summary]);
    }
    for need in grants.needed.iter().filter(|need| !grants.grants.iter().any(|grant| grant.name == need.name)) {
        // Held without a decision of its own: a wider grant covers it.
        let decision = if need.held { "covered" } else { "missing" };
        table.add([&need.name, decision, &need.place(), &need.summary]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_change_what_there_is() {
        let view =
            |name: &str, decision: &str| GrantView { name: name.into(), decision: decision.into(), decided_at: None };
        let current = [view("engine.full", "allow"), view("host.exec:rm", "deny"), view("env:A", "allow")];
        let grants = Grants {
            extension: "a/b".into(),
            allow: vec!["host.exec:rm".into()],
            deny: vec!["engine.full".into()],
            forget: vec!["env:A".into()],
        };
        let request = grants.set_request(&current);
        assert_eq!((request.allow, request.deny), (vec!["host.exec:rm".into()], vec!["engine.full".into()]));
    }
}
