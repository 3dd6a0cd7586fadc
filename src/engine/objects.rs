//! Networks and volumes.

use std::collections::HashMap;

use bollard::{
    models::NetworkCreateRequest,
    query_parameters::{ListNetworksOptions, ListVolumesOptions, RemoveVolumeOptionsBuilder},
};

use super::{Engine, found};
use crate::model::error::{Reason, Result};

/// A network.
#[derive(Debug, Clone)]
pub struct Network {
    /// Full id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: HashMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Name, which is its id.
    pub name: String,
    /// Labels.
    pub labels: HashMap<String, String>,
}

impl Engine {
    /// All networks.
    pub async fn networks(&self) -> Result<Vec<Network>> {
        let listed =
            self.client()?.list_networks(None::<ListNetworksOptions>).await.map_err(|e| self.refused("", e))?;
        let network = |network: bollard::models::Network| Network {
            id: network.id.unwrap_or_default(),
            name: network.name.unwrap_or_default(),
            labels: network.labels.unwrap_or_default(),
        };
        Ok(listed.into_iter().map(network).collect())
    }

    /// All volumes.
    pub async fn volumes(&self) -> Result<Vec<Volume>> {
        let listed = self.client()?.list_volumes(None::<ListVolumesOptions>).await.map_err(|e| self.refused("", e))?;
        let volume = |volume: bollard::models::Volume| Volume { name: volume.name, labels: volume.labels };
        Ok(listed.volumes.unwrap_or_default().into_iter().map(volume).collect())
    }

    /// Makes a bridge network and returns its id.
    pub async fn create_network(&self, name: &str, labels: HashMap<String, String>) -> Result<String> {
        let request = NetworkCreateRequest { name: name.to_owned(), labels: Some(labels), ..Default::default() };
        let created = self.client()?.create_network(request).await.map_err(|e| self.refused(name, e))?;
        Ok(created.id)
    }

    /// Removes a network. One that is gone is removed; one that somebody else's container uses stays: false.
    pub async fn remove_network(&self, id: &str) -> Result<bool> {
        let removed = found(self.client()?.remove_network(id).await.map_err(|e| self.refused(id, e)));
        in_use(removed)
    }

    /// Removes a volume. One that is gone is removed; one that somebody else's container uses stays: false.
    pub async fn remove_volume(&self, name: &str) -> Result<bool> {
        let options = RemoveVolumeOptionsBuilder::default().force(false).build();
        let removed = found(self.client()?.remove_volume(name, Some(options)).await.map_err(|e| self.refused(name, e)));
        in_use(removed)
    }
}

/// The engine's refusal to remove what is in use is an answer.
fn in_use(removed: Result<Option<()>>) -> Result<bool> {
    match removed {
        Ok(_) => Ok(true),
        Err(error) if error.reason() == Reason::EngineRefused => Ok(false),
        Err(error) => Err(error),
    }
}
