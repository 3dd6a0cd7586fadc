//! Arguments of `longshore serve`, as plain data: texts are read by [`super::resolve()`], so that all mistakes are
//! reported together.

use std::path::PathBuf;

/// Arguments of `longshore serve`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ServeArgs {
    /// Control socket [default: longshore.sock in the runtime directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Directory for everything that lasts [default: longshore in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory for the control socket [default: longshore in $XDG_RUNTIME_DIR; without it
    /// /run/longshore for root, else /run/user/UID/longshore]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// Container engine: unix://, tcp:// or ssh://, or context:NAME [default: $DOCKER_HOST or
    /// $DOCKER_CONTEXT, else the first socket found of /var/run/docker.sock and those of
    /// rootless Docker and Podman]
    #[arg(long, value_name = "URL")]
    pub engine: Option<String>,

    /// Directory with ca.pem, cert.pem and key.pem for a tcp:// engine behind TLS [default:
    /// with $DOCKER_HOST and $DOCKER_TLS_VERIFY, $DOCKER_CERT_PATH]
    #[arg(long, value_name = "DIR")]
    pub engine_tls_dir: Option<PathBuf>,

    /// Whether the engine's containers can have directories of this machine: auto, shared or apart
    /// [default: auto]
    #[arg(long, value_name = "WHETHER")]
    pub engine_files: Option<String>,

    /// Configuration file [default: longshore/config.toml in $XDG_CONFIG_HOME or ~/.config, if
    /// it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to log, such as `warn` or `longshore=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,

    /// Form of log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// Socket on which metrics are told over HTTP, in the text form of Prometheus [default: none]
    #[arg(long, value_name = "PATH")]
    pub metrics_socket: Option<PathBuf>,

    /// Collector of OpenTelemetry that spans of calls are sent to, such as http://127.0.0.1:4317
    /// [default: none]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// How long open calls may go on after a stop was asked for [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,

    /// Work for several users, each with extensions, sessions and programs of its own; only root may start this
    #[arg(long)]
    pub system: bool,

    /// Run no programs of extensions on this machine, whatever was granted; in their containers they run as ever
    #[arg(long)]
    pub no_host_programs: bool,
}

/// Arguments of `longshore repair`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct RepairArgs {
    /// Directory of what is to be repaired; in system mode that of one user, `users/UID` in the data directory
    /// [default: as for `serve`]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Container engine [default: as for `serve`]
    #[arg(long, value_name = "URL")]
    pub engine: Option<String>,

    /// Directory with the certificates for it [default: as for `serve`]
    #[arg(long, value_name = "DIR")]
    pub engine_tls_dir: Option<PathBuf>,

    /// Configuration file [default: as for `serve`]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Do what is listed; without it nothing is changed
    #[arg(long, short)]
    pub yes: bool,
}

/// Arguments of `longshore doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct DoctorArgs {
    /// Look at what `serve --system` needs
    #[arg(long)]
    pub system: bool,

    /// Directory for everything that lasts [default: as for `serve`]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory for the control socket [default: as for `serve`]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// Container engine [default: as for `serve`]
    #[arg(long, value_name = "URL")]
    pub engine: Option<String>,

    /// Directory with the certificates for it [default: as for `serve`]
    #[arg(long, value_name = "DIR")]
    pub engine_tls_dir: Option<PathBuf>,

    /// Configuration file [default: as for `serve`]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl From<&DoctorArgs> for ServeArgs {
    fn from(DoctorArgs { system, data_dir, runtime_dir, engine, engine_tls_dir, config }: &DoctorArgs) -> Self {
        let (data_dir, runtime_dir, system) = (data_dir.clone(), runtime_dir.clone(), *system);
        let (engine, engine_tls_dir, config) = (engine.clone(), engine_tls_dir.clone(), config.clone());
        ServeArgs { system, data_dir, runtime_dir, engine, engine_tls_dir, config, ..ServeArgs::default() }
    }
}

impl From<&RepairArgs> for ServeArgs {
    fn from(RepairArgs { data_dir, engine, engine_tls_dir, config, .. }: &RepairArgs) -> Self {
        let (data_dir, engine, config) = (data_dir.clone(), engine.clone(), config.clone());
        ServeArgs { data_dir, engine, engine_tls_dir: engine_tls_dir.clone(), config, ..ServeArgs::default() }
    }
}
