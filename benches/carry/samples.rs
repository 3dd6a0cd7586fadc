//! What was measured: for each thing and each contender one value a round.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::measure::quantile;

/// The contender whose values Longshore's are.
pub(crate) const OWN: &str = "Longshore";

/// Values by what they are and whose they are, in the order of rounds.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(String, String), Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, what: &str, whose: &str, value: f64) {
        self.0.entry((what.to_owned(), whose.to_owned())).or_default().push(value);
    }

    /// The median of all rounds; NaN where nothing was measured.
    pub(crate) fn median(&self, what: &str, whose: &str) -> f64 {
        quantile(&mut self.of(what, whose).to_vec(), 0.5)
    }

    /// The median of the ratios, each within one round.
    pub(crate) fn ratio(&self, of: (&str, &str), to: (&str, &str)) -> f64 {
        let pairs = self.of(of.0, of.1).iter().zip(self.of(to.0, to.1));
        quantile(&mut pairs.map(|(of, to)| of / to).collect::<Vec<_>>(), 0.5)
    }

    /// All there is, by what and by whose.
    pub(crate) fn to_json(&self) -> Value {
        let mut all = BTreeMap::<&str, BTreeMap<&str, Vec<f64>>>::new();
        for ((what, whose), values) in &self.0 {
            let rounded = values.iter().map(|value| (value * 1000.0).round() / 1000.0).collect();
            all.entry(what).or_default().insert(whose, rounded);
        }
        json!(all)
    }

    fn of(&self, what: &str, whose: &str) -> &[f64] {
        self.0.get(&(what.to_owned(), whose.to_owned())).map_or(&[], Vec::as_slice)
    }
}
