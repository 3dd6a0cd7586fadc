//! Compose files: what is refused before Compose reads them, and how what Compose made of them becomes the file that is
//! brought up (design section 5).
//!
//! 1. [`prepass_all`] reads the author's text, refuses what would open or run something on the host, and gives the text
//!    that Compose reads instead.
//! 2. `docker compose config` resolves and normalises it (`engine::compose`).
//! 3. [`plan`](plan()) labels, mounts and names the result, and says which grants it needs.

mod binds;
mod canonical;
mod flaw;
mod labelling;
mod needs;
mod ours;
mod paths;
mod plan;
#[cfg(test)]
mod plan_tests;
mod prepass;
#[cfg(test)]
mod prepass_tests;
mod refused;
mod restart;
mod text;
mod variables;
mod yaml;

pub use flaw::Flaw;
pub use labelling::has_links;
pub use plan::{Context, Plan, PluginImage, ServicePlan, plan};
pub use prepass::{CheckedFile, Prepass, prepass, prepass_all};
pub use variables::{PLUGIN_VARIABLE, Variable};
pub use yaml::MAX_TEXT_BYTES;
