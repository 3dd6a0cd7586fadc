//! Arguments of the commands that read the configuration, as plain data: texts are read by [`super::resolve()`], so that
//! all mistakes are reported together.

use std::path::PathBuf;

/// Where a broker's things are: arguments of every command that works on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct PlaceArgs {
    /// Directory for everything that lasts [default: longshore in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Container engine: unix://, tcp:// or ssh://, or context:NAME [default: $DOCKER_HOST or
    /// $DOCKER_CONTEXT, else the first socket found of /var/run/docker.sock and those of
    /// rootless Docker and Podman]
    #[arg(long, value_name = "URL")]
    pub engine: Option<String>,

    /// Directory with ca.pem, cert.pem and key.pem for a tcp:// engine behind TLS [default:
    /// with $DOCKER_HOST and $DOCKER_TLS_VERIFY, $DOCKER_CERT_PATH, else $DOCKER_CONFIG or
    /// ~/.docker]
    #[arg(long, value_name = "DIR")]
    pub engine_tls_dir: Option<PathBuf>,

    /// Configuration file [default: longshore/config.toml in $XDG_CONFIG_HOME or ~/.config, if
    /// it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `longshore serve`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ServeArgs {
    /// Where its things are.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Control socket [default: longshore.sock in the runtime directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Directory for the control socket and those of updates [default: longshore in
    /// $XDG_RUNTIME_DIR; without it /run/longshore for root, else /run/user/UID/longshore or
    /// longshore-UID in /tmp]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// Whether the engine's containers can have directories of this machine: auto, shared or apart
    /// [default: auto]
    #[arg(long, value_name = "WHETHER")]
    pub engine_files: Option<String>,

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

    /// Run no programs of extensions on this machine, whatever was granted, but the docker command
    /// line of those that hold engine.full; in their containers they run as ever
    #[arg(long)]
    pub no_host_programs: bool,
}

/// Arguments of `longshore repair`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct RepairArgs {
    /// Where its things are.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Do what is listed; without it nothing is changed
    #[arg(long, short)]
    pub yes: bool,
}

/// Arguments of `longshore doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct DoctorArgs {
    /// Where its things are.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Directory for the control socket and those of updates [default: as for `serve`]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// Look at what `serve --system` needs
    #[arg(long)]
    pub system: bool,
}

impl From<&DoctorArgs> for ServeArgs {
    fn from(DoctorArgs { place, runtime_dir, system }: &DoctorArgs) -> Self {
        let (place, runtime_dir) = (place.clone(), runtime_dir.clone());
        ServeArgs { place, runtime_dir, system: *system, ..ServeArgs::default() }
    }
}

impl From<&RepairArgs> for ServeArgs {
    fn from(args: &RepairArgs) -> Self {
        ServeArgs { place: args.place.clone(), ..ServeArgs::default() }
    }
}
