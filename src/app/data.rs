//! The data directory, held: that no other broker runs on it.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crate::{
    config::Config,
    files::{
        layout::{self, Layout},
        users::Users,
    },
    model::error::Result,
    user,
};

/// The data directory, held.
pub(super) enum Data {
    /// That of one user; the layout is for the first that asks.
    One(PathBuf, Mutex<Option<Layout>>),
    /// That of several.
    Several(Users),
}

impl Data {
    /// # Errors
    ///
    /// Those of [`Layout::open`].
    pub(super) fn open(config: &Config) -> Result<Self> {
        let path = &config.data_dir;
        match &config.system {
            None => Ok(Data::One(path.clone(), Mutex::new(Some(Layout::open(path)?)))),
            Some(_) => Users::open(path).map(Data::Several),
        }
    }

    /// Where a socket leads to an engine that has none.
    pub(super) fn relay_socket(&self) -> PathBuf {
        match self {
            Data::One(path, _) => layout::relay_socket(path),
            Data::Several(users) => layout::relay_socket(users.path()),
        }
    }

    /// Whose brokers are to be opened without being called.
    pub(super) fn known(&self) -> Result<Vec<u32>> {
        match self {
            Data::One(..) => Ok(vec![user::own_uid()]),
            Data::Several(users) => users.known(),
        }
    }

    /// The directory of one user's broker.
    pub(super) fn layout(&self, uid: u32) -> Result<Layout> {
        match self {
            Data::One(path, first) => {
                let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                first.map_or_else(|| Layout::open(path), Ok)
            }
            Data::Several(users) => users.layout(uid),
        }
    }
}
