//! The socket's side: one thread for each caller, which hands the call to the owner and waits.

use crate::{
    containers, namespace,
    owner::{CallError, Request},
};
use ipc::{Call, Failure, Method, Outcome};
use node_api::{
    init::Done,
    netd::{Attach, Attachments, AttachmentsReply, Detach, Protocol, Socket, Status},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::os::fd::OwnedFd;
use tokio::sync::{mpsc, oneshot};

/// Answers one call.
pub(crate) fn answer(call: Call, owner: &mpsc::Sender<Request>) -> Outcome {
    match call.method() {
        Status::NAME => {
            call.answer(|_: Status| ask(owner, Request::Status)?.map_err(Failure::from))
        }
        Attach::NAME => call.answer(|Attach { id, ports }| {
            let request = |reply| Request::Attach(id, ports, reply);
            ask(owner, request)?.map_err(failure)
        }),
        Detach::NAME => call.answer(|Detach { id }| {
            ask(owner, |reply| Request::Detach(id, reply))?.map_err(failure)?;
            Ok::<_, Failure>(Done {})
        }),
        Attachments::NAME => call.answer(|_: Attachments| {
            let attachments = ask(owner, Request::Attachments)?;
            Ok::<_, Failure>(AttachmentsReply { attachments })
        }),
        // The owner is not asked: what does not exist cannot be entered, and nothing is changed.
        Socket::NAME => call.answer_with_fds(|Socket { id, protocol }, _| {
            socket(&id, protocol).map(|socket| (Done {}, vec![socket]))
        }),
        _ => call.unknown(),
    }
}

fn socket(id: &str, protocol: Protocol) -> Result<OwnedFd, Failure> {
    containers::check_id(id).map_err(|refusal| Failure::new("Refused", refusal.to_string()))?;
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = namespace::within(id, || Ok(socket_with(AddressFamily::INET, kind, flags, None)?));
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new("NotFound", format!("{id} has no network")),
        _ => error.into(),
    })
}

/// `Refused`: asking again without a change is of no use. `Failed`: it may be.
fn failure(error: CallError) -> Failure {
    match error {
        CallError::Refused(refusal) => Failure::new("Refused", refusal.to_string()),
        CallError::Store(_) | CallError::Firewall(_) | CallError::Incomplete { .. } => error.into(),
    }
}

fn ask<T>(
    owner: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Failure> {
    let ending = || Failure::new("Ending", "netd is ending");
    let (reply, answer) = oneshot::channel();
    owner.blocking_send(request(reply)).map_err(|_| ending())?;
    answer.blocking_recv().map_err(|_| ending())
}
