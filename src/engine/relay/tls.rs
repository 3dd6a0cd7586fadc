//! Engines behind TLS, as dockerd has it: each side shows a certificate, and the engine's has to be for its name.

use std::{fmt, fs, path::Path, sync::Arc};

use tokio::time::timeout;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, AlertDescription, CertificateError, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::{CONNECT_BOUND, Trouble, both_ways, connect, noted};
use crate::{
    local::Stream,
    model::error::{Error, Reason, Result},
};

/// An engine's address, whom it is believed, and who we are there.
#[derive(Clone)]
pub struct Tls {
    host: String,
    port: u16,
    name: ServerName<'static>,
    connector: TlsConnector,
    /// Where the certificates are.
    dir: String,
    /// We show one ourselves.
    is_known: bool,
}

impl Tls {
    /// By the files that Docker's own tools use: `ca.pem`, who vouches for the engine; `cert.pem` and `key.pem`, who we
    /// are, both or neither.
    ///
    /// # Errors
    ///
    /// `CONFIG_INVALID`.
    pub fn new(host: &str, port: u16, dir: &Path) -> Result<Tls> {
        let wrong = |what: &str, why: &dyn fmt::Display| {
            let shown = dir.join(what).display().to_string();
            Error::new(Reason::ConfigInvalid, shown.clone(), format!("{shown}: {why}"))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(dir, "ca.pem").map_err(|why| wrong("ca.pem", &why))? {
            roots.add(certificate).map_err(|error| wrong("ca.pem", &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::bug("TLS without a version").caused_by(error))?
            .with_root_certificates(roots);
        let (has_certificate, has_key) = (dir.join("cert.pem").exists(), dir.join("key.pem").exists());
        let config = match (has_certificate, has_key) {
            (false, false) => builder.with_no_client_auth(),
            (_, false) => return Err(wrong("key.pem", &"is not there, and cert.pem is")),
            (_, true) => {
                let chain = certificates(dir, "cert.pem").map_err(|why| wrong("cert.pem", &why))?;
                let key = fs::read(dir.join("key.pem")).map_err(|error| wrong("key.pem", &error))?;
                let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong("key.pem", &error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| wrong("key.pem", &error))?
            }
        };
        let name = ServerName::try_from(host.to_owned());
        let name =
            name.map_err(|_| Error::new(Reason::ConfigInvalid, host, format!("{host:?} is no name of a host")))?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Tls { host: host.to_owned(), port, name, connector, dir: dir.display().to_string(), is_known: has_key })
    }

    /// Carries one connection, each way until its end.
    pub(super) async fn carry(&self, client: &mut Stream, trouble: &Trouble) -> Result<(), String> {
        let noted = |why| noted(trouble, why);
        let stream = connect(&self.host, self.port).await.map_err(noted)?;
        let shaken = match timeout(CONNECT_BOUND, self.connector.connect(self.name.clone(), stream)).await {
            Ok(shaken) => shaken.map_err(|error| noted(self.why(&error).unwrap_or_else(|| error.to_string())))?,
            Err(_) => return Err(noted(format!("{} says nothing in TLS within {CONNECT_BOUND:?}", self.host))),
        };
        // Whether the engine takes our certificate shows when it is first read from.
        both_ways(client, shaken, trouble).await.map_err(|error| match self.why(&error) {
            Some(why) => noted(why),
            None => error.to_string(),
        })
    }

    /// What went wrong in TLS, if that is it.
    fn why(&self, error: &std::io::Error) -> Option<String> {
        let Tls { host, port, dir, .. } = self;
        let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(match tls {
            // The same name as that of who vouches is not enough.
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                format!("the certificate of {host} is not vouched for by {dir}/ca.pem")
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!("the certificate of the engine is not for the name {host}"),
            rustls::Error::InvalidCertificate(why) => format!("the certificate of {host} is not valid: {why}"),
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate)
                if !self.is_known =>
            {
                format!("{host} wants a certificate of us: put cert.pem and key.pem into {dir}")
            }
            rustls::Error::AlertReceived(alert) => {
                format!("{host} refuses {dir}/cert.pem, or how we speak TLS: {alert:?}")
            }
            rustls::Error::InvalidMessage(_) => format!("what listens on port {port} of {host} does not speak TLS"),
            other => format!("TLS with {host}: {other}"),
        })
    }
}

fn certificates(dir: &Path, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = fs::read(dir.join(file)).map_err(|error| error.to_string())?;
    let found = CertificateDer::pem_slice_iter(&read).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("holds no certificate".into()) } else { Ok(found) }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}
