//! An installed extension, taken away again however the test ends.

use std::path::PathBuf;

use longshore::{model::reference::ExtensionId, pb};
use tokio::net::UnixListener;
use tonic::Status;

use super::{Broker, BrokerOptions, EngineAt, Image, ImageBuilder, trusting};

/// A broker with one extension installed.
pub(crate) struct Stage {
    /// The broker; dropped behind the extension.
    pub(crate) broker: Broker,
    /// The extension's image.
    pub(crate) image: Image,
}

impl Stage {
    /// Installs what `builder` makes, waiting for its socket.
    pub(crate) async fn install(builder: ImageBuilder, options: BrokerOptions) -> Stage {
        let image = builder.build_in(&options.engine.clone().unwrap_or_default()).await;
        let stage = Stage { broker: Broker::start_with(options).await, image };
        stage.broker.install(trusting(&stage.image.reference)).await.unwrap();
        stage
    }

    /// Installs an extension whose container only sleeps: the test itself plays the backend, see [`Stage::listen`].
    pub(crate) async fn idle(options: BrokerOptions) -> Stage {
        Stage::without_wait(Image::sleeping(), options).await
    }

    /// Installs what `builder` makes without waiting for its socket.
    pub(crate) async fn without_wait(builder: ImageBuilder, options: BrokerOptions) -> Stage {
        let image = builder.build_in(&options.engine.clone().unwrap_or_default()).await;
        let stage = Stage { broker: Broker::start_with(options).await, image };
        let ready_timeout = Some(prost_types::Duration::default());
        let request = pb::InstallRequest { ready_timeout, ..trusting(&stage.image.reference) };
        stage.broker.install(request).await.unwrap();
        stage
    }

    /// Id of the extension.
    pub(crate) fn id(&self) -> String {
        self.image.id.clone()
    }

    /// The directory that the container knows as `/run/guest-services`: where the broker shares none with the engine, the
    /// one behind the volume, by a short path.
    pub(crate) fn guest_dir(&self) -> PathBuf {
        if !self.broker.is_apart() {
            return self.extension_dir().join("guest");
        }
        let link = self.broker.scratch().join("guest");
        if link.symlink_metadata().is_err() {
            let own = format!("label=dev.longshore.extension={}", self.id());
            let volume = self.broker.engine().docker(&["volume", "ls", "-q", "--filter", &own]);
            let behind = self.broker.engine().docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", &volume]);
            std::os::unix::fs::symlink(behind, &link).unwrap();
        }
        link
    }

    /// The directory of the extension.
    pub(crate) fn extension_dir(&self) -> PathBuf {
        let id: ExtensionId = self.image.id.parse().unwrap();
        self.broker.data_dir().join("extensions").join(id.slug())
    }

    /// A listener where the backend's should be, made by root with the mode that umask leaves: a plain broker cannot
    /// connect to it directly.
    pub(crate) fn listen(&self) -> UnixListener {
        let _ = std::fs::remove_file(self.guest_dir().join("backend.sock"));
        UnixListener::bind(self.guest_dir().join("backend.sock")).unwrap()
    }

    /// One request, as given but for the extension.
    pub(crate) async fn fetch(&self, request: pb::FetchRequest) -> Result<pb::FetchResponse, Status> {
        let request = pb::FetchRequest { extension: self.id(), ..request };
        let mut backends = self.broker.backends().await.max_encoding_message_size(70 << 20);
        Ok(backends.fetch(request).await?.into_inner())
    }

    /// The only container of the extension, or that of one service.
    pub(crate) fn container(&self, service: &str) -> String {
        let (own, service) = (
            format!("label=dev.longshore.extension={}", self.id()),
            format!("label=com.docker.compose.service={service}"),
        );
        let found = self.broker.engine().docker(&["ps", "-aq", "--no-trunc", "--filter", &own, "--filter", &service]);
        assert_eq!(found.lines().count(), 1, "{found}");
        found
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.broker.cli(&["rm", "--volumes", &self.image.id]).output();
        // Where the broker is gone or broken.
        clear(&self.broker.engine(), &self.image.id);
    }
}

/// Removes the containers and networks of an extension.
pub(crate) fn clear(engine: &EngineAt, extension: &str) {
    let own = format!("label=dev.longshore.extension={extension}");
    for (list, remove) in
        [(&["ps", "-aq"][..], &["rm", "-fv"][..]), (&["network", "ls", "-q"][..], &["network", "rm"][..])]
    {
        let listed = engine.cli(list).args(["--filter", &own]).output().unwrap().stdout;
        for id in String::from_utf8_lossy(&listed).lines() {
            let _ = engine.cli(remove).arg(id).output();
        }
    }
}

/// What a command of the docker CLI says on the machine's engine, which must not fail.
pub(crate) fn docker(args: &[&str]) -> String {
    EngineAt::default().docker(args)
}

/// Names tests twice: with a broker as root and with one as a plain user of the engine.
macro_rules! as_both {
    ($($test:ident),+ $(,)?) => {
        mod as_root {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $test() { super::$test($crate::support::BrokerOptions::default()).await; })+
        }
        mod as_plain_user {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $test() {
                super::$test($crate::support::BrokerOptions { plain: true, ..Default::default() }).await;
            })+
        }
    };
}
pub(crate) use as_both;
