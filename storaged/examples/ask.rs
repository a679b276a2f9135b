//! Asks a running storaged, for tests in a virtual machine: `ask METHOD [JSON]`.

#![forbid(unsafe_code)]

use ipc::Method;
use node_api::storaged as api;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let method = words.next().unwrap_or_default();
    let parameters = words.next().unwrap_or_else(|| "{}".to_owned());
    let answer = match method.as_str() {
        "Disks" => ask::<api::Disks>(&parameters),
        "Identity" => ask::<api::Identity>(&parameters),
        "Volumes" => ask::<api::Volumes>(&parameters),
        "VolumeEnsure" => ask::<api::VolumeEnsure>(&parameters),
        "VolumeDelete" => ask::<api::VolumeDelete>(&parameters),
        _ => Err("usage: ask Disks|Identity|Volumes|VolumeEnsure|VolumeDelete [JSON]".into()),
    };
    daemon::run("ask", || answer.map(|text| daemon::info!("{text}")))
}

fn ask<M: Method + DeserializeOwned>(
    parameters: &str,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let parameters: M = serde_json::from_str(parameters)?;
    let reply = ipc::call(node_api::paths::STORAGED_SOCKET, &parameters)?;
    Ok(serde_json::to_string(&reply)?)
}
