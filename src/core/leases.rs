//! The leases that an extension's backends hold, and where its calls go because of them. Nothing in here waits or dials.

use crate::model::{
    error::{Error, Reason, Result},
    registration::{Address, Endpoint, Health, Hello, Holder, Protocol, Speech, check_count},
};

/// The leases of one extension.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Whether one ever was granted.
    were_granted: bool,
    /// In the order in which they were granted.
    held: Vec<HeldLease>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// Its number.
    pub epoch: i64,
    /// Who holds it.
    pub holder: Holder,
    /// What was said last.
    pub hello: Hello,
}

/// Where a call goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LeaseRoute {
    /// To what was registered, and what is spoken there.
    To(Address, Protocol),
    /// Nowhere yet: what it would go to says that it takes no calls, and why.
    NotReady(String),
    /// To the socket that the manifest exposes.
    Manifest,
}

impl Leases {
    /// Grants a lease with a new number, in the place of one that the same service holds, whose number is returned.
    ///
    /// # Errors
    ///
    /// `ENDPOINT_TAKEN`; `REQUEST_INVALID` and `LIMIT_REACHED` of [`Hello::check`].
    pub(super) fn grant(&mut self, epoch: i64, holder: Holder, hello: Hello) -> Result<Option<i64>> {
        hello.check()?;
        for endpoint in &hello.endpoints {
            self.check_free(&holder, &endpoint.name)?;
        }
        let old = self.held.iter().position(|held| held.holder.is_same_place(&holder));
        let superseded = old.map(|index| self.held.remove(index).epoch);
        self.were_granted = true;
        self.held.push(HeldLease { epoch, holder, hello });
        Ok(superseded)
    }

    /// Ends a lease; false where it has ended already.
    pub(super) fn end(&mut self, epoch: i64) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held.epoch != epoch);
        self.held.len() < before
    }

    /// Notes what changed for the holder of a lease, if anything did; one that has ended has no say any more.
    ///
    /// # Errors
    ///
    /// `ENDPOINT_TAKEN`, `LIMIT_REACHED`, `REQUEST_INVALID` for an endpoint that is not offered.
    pub(super) fn note(&mut self, epoch: i64, change: LeaseChange) -> Result<bool> {
        let Some(index) = self.held.iter().position(|held| held.epoch == epoch) else { return Ok(false) };
        if let LeaseChange::Added(endpoint) = &change {
            self.check_free(&self.held[index].holder, &endpoint.name)?;
        }
        let hello = &mut self.held[index].hello;
        match change {
            LeaseChange::Health(health) if hello.health == health => return Ok(false),
            LeaseChange::Health(health) => hello.health = health,
            LeaseChange::Added(endpoint) if hello.endpoints.contains(&endpoint) => return Ok(false),
            LeaseChange::Added(endpoint) => {
                match hello.endpoints.iter_mut().find(|known| known.name == endpoint.name) {
                    Some(known) => *known = endpoint,
                    None => {
                        check_count(hello.endpoints.len() + 1)?;
                        hello.endpoints.push(endpoint);
                    }
                }
            }
            LeaseChange::Gone(name) => {
                let before = hello.endpoints.len();
                hello.endpoints.retain(|endpoint| endpoint.name != name);
                if hello.endpoints.len() == before {
                    let message = format!("the endpoint {name:?} is not offered, so it cannot go");
                    return Err(Error::new(Reason::RequestInvalid, "endpoint_gone", message));
                }
            }
        }
        Ok(true)
    }

    /// Where a call goes: to the endpoint of that name, else to the first of those that serve `need` best, of `service`
    /// before others. While the host holds a lease, it alone counts.
    ///
    /// # Errors
    ///
    /// `ENDPOINT_NOT_FOUND`, also for one that speaks another protocol.
    pub(super) fn route(&self, endpoint: Option<&str>, need: Speech, service: Option<&str>) -> Result<LeaseRoute> {
        let all: Vec<&HeldLease> = self.counting().collect();
        let is_of_service = |held: &HeldLease| service.is_some_and(|service| held.holder.service() == service);
        let offers = || all.iter().flat_map(|held| held.hello.endpoints.iter().map(move |offer| (*held, offer)));
        let found = match endpoint {
            Some(name) => match offers().find(|(_, offer)| offer.name == name) {
                Some((_, offer)) if need.served_by(offer.protocol).is_none() => {
                    let (speaks, needs) = (offer.protocol.name(), need.name());
                    return Err(not_found(name, format!("the endpoint {name} speaks {speaks}, and this call {needs}")));
                }
                Some(found) => Some(found),
                None => return Err(self.unknown(name)),
            },
            None => {
                let serving = offers().filter_map(|found| Some((need.served_by(found.1.protocol)?, found)));
                // The first of equals.
                serving.min_by_key(|(rank, (held, _))| (!is_of_service(held), *rank)).map(|(_, found)| found)
            }
        };
        let gate = match found {
            Some((held, _)) => Some(held),
            // Who says that it takes no calls means those as well.
            None => all.iter().find(|held| held.holder == Holder::Host || is_of_service(held)).copied(),
        };
        match (gate, found) {
            (Some(HeldLease { hello, .. }), _) if !hello.health.ready => {
                Ok(LeaseRoute::NotReady(hello.health.message.clone()))
            }
            (_, Some((_, offer))) => Ok(LeaseRoute::To(offer.address.clone(), offer.protocol)),
            (_, None) => Ok(LeaseRoute::Manifest),
        }
    }

    /// All that are held, the host's first.
    pub(super) fn held(&self) -> Vec<HeldLease> {
        let (mut host, others): (Vec<HeldLease>, Vec<HeldLease>) =
            self.held.iter().cloned().partition(|held| held.holder == Holder::Host);
        host.extend(others);
        host
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.held.len()
    }

    /// The lease of the host, while it holds one.
    pub(super) fn host(&self) -> Option<&HeldLease> {
        self.held.iter().find(|held| held.holder == Holder::Host)
    }

    /// How a service says it is, whose containers these are; `None` where it is not registered.
    pub(super) fn health(&self, service: &str, containers: &[&str]) -> Option<Health> {
        let is_meant =
            |held: &&HeldLease| held.holder.service() == service && containers.contains(&held.holder.container());
        self.held.iter().find(is_meant).map(|held| held.hello.health.clone())
    }

    /// Whether a lease was ever granted.
    pub(super) fn were_granted(&self) -> bool {
        self.were_granted
    }

    fn counting(&self) -> impl Iterator<Item = &HeldLease> {
        let is_stood_in = self.host().is_some();
        self.held.iter().filter(move |held| !is_stood_in || held.holder == Holder::Host)
    }

    fn check_free(&self, holder: &Holder, name: &str) -> Result<()> {
        if *holder == Holder::Host {
            return Ok(());
        }
        let is_other = |held: &&HeldLease| held.holder != Holder::Host && !held.holder.is_same_place(holder);
        let has_it = |held: &&HeldLease| held.hello.endpoints.iter().any(|endpoint| endpoint.name == name);
        match self.held.iter().filter(is_other).find(has_it) {
            None => Ok(()),
            Some(held) => {
                let message = format!("{} offers an endpoint {name} already; choose another name", held.holder);
                Err(Error::new(Reason::EndpointTaken, name, message))
            }
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let offers = self.counting().flat_map(|held| &held.hello.endpoints);
        let names: Vec<&str> = offers.map(|endpoint| endpoint.name.as_str()).collect();
        let there_are = match names.is_empty() {
            true => "none is registered".to_owned(),
            false => format!("there are {}", names.join(", ")),
        };
        not_found(name, format!("no endpoint {name} is registered; {there_are}"))
    }
}

/// What a backend says has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// How it is.
    Health(Health),
    /// It offers this, in the place of one of the same name.
    Added(Endpoint),
    /// It does not offer this any more.
    Gone(String),
}

fn not_found(name: &str, message: String) -> Error {
    Error::new(Reason::EndpointNotFound, name, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(name: &str, protocol: Protocol) -> Endpoint {
        Endpoint { name: name.into(), protocol, address: Address::Guest(format!("{name}.sock")) }
    }

    fn hello(instance: &str, endpoints: Vec<Endpoint>) -> Hello {
        let health = Health { ready: true, message: String::new() };
        Hello { instance: instance.into(), software: String::new(), endpoints, health, directory: None }
    }

    fn service(name: &str) -> Holder {
        Holder::Service { service: name.into(), container: format!("{name}-1") }
    }

    fn to(name: &str, protocol: Protocol) -> LeaseRoute {
        LeaseRoute::To(Address::Guest(format!("{name}.sock")), protocol)
    }

    #[test]
    fn calls_go_to_what_is_registered() {
        use Protocol::{Grpc, Http1};
        let mut leases = Leases::default();
        let route = |leases: &Leases, name, need| leases.route(name, need, Some("web"));
        assert_eq!(route(&leases, None, Speech::Http).unwrap(), LeaseRoute::Manifest);
        assert_eq!(route(&leases, Some("a"), Speech::Http).unwrap_err().reason(), Reason::EndpointNotFound);
        let db = 1;
        leases.grant(db, service("db"), hello("1", vec![endpoint("db", Http1), endpoint("rpc", Grpc)])).unwrap();
        assert_eq!(route(&leases, None, Speech::Http).unwrap(), to("db", Http1));
        let web = 2;
        leases.grant(web, service("web"), hello("2", vec![endpoint("api", Http1)])).unwrap();
        assert_eq!(route(&leases, None, Speech::Http).unwrap(), to("api", Http1), "the backend service comes first");
        assert_eq!(route(&leases, None, Speech::Grpc).unwrap(), to("rpc", Grpc));
        assert_eq!(route(&leases, Some("db"), Speech::Http).unwrap(), to("db", Http1));
        assert_eq!(route(&leases, Some("db"), Speech::Grpc).unwrap_err().reason(), Reason::EndpointNotFound);
        let taken = leases.grant(3, service("third"), hello("3", vec![endpoint("api", Http1)])).unwrap_err();
        assert_eq!(taken.reason(), Reason::EndpointTaken);
        let tired = Health { ready: false, message: "tired".into() };
        leases.note(web, LeaseChange::Health(tired)).unwrap();
        assert_eq!(route(&leases, None, Speech::Http).unwrap(), LeaseRoute::NotReady("tired".into()));
        assert_eq!(route(&leases, Some("db"), Speech::Http).unwrap(), to("db", Http1), "the other one is");
        let superseded = leases.grant(4, service("web"), hello("4", vec![])).unwrap();
        assert_eq!(superseded, Some(web));
        assert!(!leases.end(web));
        leases.end(db);
        assert_eq!(route(&leases, None, Speech::Http).unwrap(), LeaseRoute::Manifest);
    }

    /// HTTP goes to the first that speaks it, of either version; gRPC to who offers it by name before who only could.
    #[test]
    fn one_that_speaks_h2c_serves_everything() {
        use Protocol::{Grpc, H2c, Http1};
        let mut leases = Leases::default();
        let route = |leases: &Leases, name, need| leases.route(name, need, Some("web"));
        leases.grant(1, service("web"), hello("1", vec![endpoint("two", H2c), endpoint("one", Http1)])).unwrap();
        assert_eq!(route(&leases, None, Speech::Http).unwrap(), to("two", H2c));
        assert_eq!(route(&leases, None, Speech::Grpc).unwrap(), to("two", H2c));
        assert_eq!(route(&leases, Some("two"), Speech::Grpc).unwrap(), to("two", H2c));
        assert_eq!(route(&leases, Some("one"), Speech::Http).unwrap(), to("one", Http1));
        leases.note(1, LeaseChange::Added(endpoint("rpc", Grpc))).unwrap();
        assert_eq!(route(&leases, None, Speech::Grpc).unwrap(), to("rpc", Grpc));
        assert_eq!(route(&leases, Some("rpc"), Speech::Http).unwrap_err().reason(), Reason::EndpointNotFound);
    }

    #[test]
    fn the_host_stands_in_for_all() {
        let mut leases = Leases::default();
        leases.grant(1, service("web"), hello("1", vec![endpoint("api", Protocol::Http1)])).unwrap();
        let own = Endpoint { address: Address::Host("/x.sock".into()), ..endpoint("api", Protocol::Http1) };
        leases.grant(2, Holder::Host, hello("2", vec![own])).unwrap();
        let route = |leases: &Leases| leases.route(Some("api"), Speech::Http, Some("web")).unwrap();
        assert_eq!(route(&leases), LeaseRoute::To(Address::Host("/x.sock".into()), Protocol::Http1));
        assert_eq!(leases.held()[0].holder, Holder::Host);
        leases.end(2);
        assert_eq!(route(&leases), to("api", Protocol::Http1));
    }

    proptest! {
        /// Whatever is said in whatever order: a service has one lease, a name one service.
        #[test]
        fn nothing_is_held_twice(steps in prop::collection::vec((0_usize..4, 0_usize..3, 0_usize..4, any::<bool>()), 0..60)) {
            let mut leases = Leases::default();
            let mut epochs = vec![];
            for (what, who, name, ready) in steps {
                let holder = [Holder::Host, service("a"), service("b")][who].clone();
                let name = format!("e{name}");
                let latest = epochs.iter().rev().nth(who).copied().unwrap_or(0);
                match what {
                    0 => {
                        let epoch = epochs.len() as i64 + 1;
                        let _ = leases.grant(epoch, holder, hello("x", vec![endpoint(&name, Protocol::Http1)]));
                        epochs.push(epoch);
                    }
                    1 => { leases.end(latest); }
                    2 => { let _ = leases.note(latest, LeaseChange::Added(endpoint(&name, Protocol::Grpc))); }
                    _ => { let _ = leases.note(latest, LeaseChange::Health(Health { ready, message: name })); }
                }
                for (index, one) in leases.held.iter().enumerate() {
                    for other in &leases.held[index + 1..] {
                        prop_assert!(!one.holder.is_same_place(&other.holder));
                        let is_shared = |endpoint: &Endpoint| other.hello.endpoints.iter().any(|o| o.name == endpoint.name);
                        let is_between_services = one.holder != Holder::Host && other.holder != Holder::Host;
                        prop_assert!(!(is_between_services && one.hello.endpoints.iter().any(is_shared)));
                    }
                }
                let unready = leases.held.iter().any(|held| held.holder == Holder::Host && !held.hello.health.ready);
                if unready {
                    let route = leases.route(None, Speech::Http, Some("a")).unwrap();
                    prop_assert!(matches!(route, LeaseRoute::NotReady(_)));
                }
            }
        }
    }
}
