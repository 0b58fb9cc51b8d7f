//! `batonfs read`: one version of a key, byte for byte, or nothing at all.

use super::options::{PlaceArgs, perform, unexpected};
use super::{Ended, Exit, output};
use crate::committer::{Call, Request};
use crate::words::Version;

/// Print the value of a key
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// An earlier version, as 'history' tells; the newest where none is given
    #[arg(long, value_name = "N")]
    version: Option<Version>,
}

pub(super) fn run(args: &Args) -> Ended {
    let (root, session, key) = args.place.all()?;
    let request = match args.version {
        None => Request::Read { session, key },
        Some(version) => Request::ReadVersion { session, key, version },
    };
    match perform(&root, Call::new(request))? {
        (_, Some(value)) => output::data(|to| value.give(to)).map(|()| Exit::Done),
        (reply, None) => Err(unexpected(&reply)),
    }
}
