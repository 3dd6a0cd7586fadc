//! Arguments of `serve`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Socket to serve on
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Directory of what must survive a restart
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory of the control socket
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Address of the container engine
    #[arg(long, value_name = "URL")]
    pub engine: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
