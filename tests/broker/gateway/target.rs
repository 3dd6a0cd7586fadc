//! The docker command line as an extension is given it.
