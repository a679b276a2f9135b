//! What ran by the nodes' own reports, each held against what was agreed on at its time.

use super::{
    Code, Entries, Expected, Findings, Run,
    chains::Chain,
    court::{CLOCK_S, Court},
};
use contract::{
    Bundle, Capacity, FlistId, NodeId, Past, Signed, Timestamp, Trust, Verdict,
    decision::Retention,
    header::{Header, OnPartition},
    report::{Report, State},
    verdict::{self, Agreed, Case, Cause, Ended, Refusal},
    workload::{Container, Spec},
};
use std::collections::{BTreeMap, BTreeSet};

/// A node has so long to end what runs, and to report it.
pub const STOP_S: i64 = 900;
/// A verdict is so old at most when its node reports what became of it.
const VERDICT_S: i64 = 2;
/// Code of a container that runs and has not passed its health check yet (`contractd`).
const STARTING: &str = "starting";
/// Code of what is stopped because the node hears nothing, and goes on when it does (`contractd`).
const PARTITIONED: &str = "partitioned";

/// A finding without the report that it is about.
type Wrong = (Code, String);

/// Every run of the contract.
pub(super) fn runs(
    case: &Case,
    bundle: &Bundle,
    chains: &[Chain],
    entries: Option<&Entries>,
    expected: &Expected<'_>,
    findings: &mut Findings,
) -> Vec<Run> {
    let mut court = Court::new(case, bundle, entries);
    let mut runs = Vec::new();
    for chain in chains {
        let mut node = NodeTrial {
            case,
            court: &mut court,
            trust: trust(chain, expected),
            entries,
            heard: None,
        };
        let about: Vec<_> =
            chain.links.iter().filter(|link| link.body.contract == expected.contract).collect();
        let ends = ends(&about, case);
        let mut before: BTreeMap<String, &Report> = BTreeMap::new();
        for (link, until) in about.iter().zip(ends) {
            let report = &link.body;
            let workload = report.workload.clone().unwrap_or_default();
            let before = before.insert(workload.clone(), report);
            let mut found = |(code, text): Wrong| {
                let text = format!("node {}: {workload}: {text}", chain.node);
                findings.add(code, Some(link.id), text);
            };
            let held = node.hold(link);
            let is_lawful = held.is_ok();
            if let Err(wrong) = held {
                found(wrong);
            }
            let Some(ran) = &report.ran else { continue };
            let last = until.or(chain.links.last()).unwrap_or(link);
            // What says that it has ended needs no other end.
            if is_lawful
                && report.state != State::Done
                && let Some(wrong) = node.ran_on(link, last)
            {
                found(wrong);
            }
            if before.is_some_and(|before| says_again(report, before)) {
                continue;
            }
            runs.push(Run {
                node: chain.node,
                version: report.version,
                state: report.state,
                from: report.at,
                until: until.map(|link| link.body.at),
                ran: ran.clone(),
                statement: link.id,
                entry: node.entry(link),
                workload,
            });
        }
    }
    runs
}

/// Whether a report says once more, of a later version, that a job is done which that did not change.
fn says_again(report: &Report, before: &Report) -> bool {
    let both_done = [report, before].iter().all(|one| one.state == State::Done);
    both_done && report.version != before.version && report.ran == before.ran
}

fn trust(chain: &Chain, expected: &Expected<'_>) -> Trust {
    Trust {
        network: expected.network.to_owned(),
        farm: chain.farm,
        node: chain.node,
        // What was free is not known. Only the node could say.
        free: Capacity {
            cru_milli: u64::MAX,
            mru_bytes: u64::MAX,
            sru_bytes: u64::MAX,
            hru_bytes: u64::MAX,
        },
        past: Past::default(),
    }
}

/// The reports of one node in their order, with what is final on it by those before.
struct NodeTrial<'a, 'b> {
    case: &'a Case,
    court: &'a mut Court<'b>,
    trust: Trust,
    entries: Option<&'a Entries>,
    /// When it last reported what might run.
    heard: Option<Timestamp>,
}

impl NodeTrial<'_, '_> {
    fn entry(&self, link: &Signed<Report>) -> Option<u64> {
        self.entries.and_then(|entries| entries.get(&link.id).copied())
    }

    /// Holds a report against what was agreed on, and remembers what is final from then on.
    fn hold(&mut self, link: &Signed<Report>) -> Result<(), Wrong> {
        let held = self.held(link);
        if let Some(ended) = self.own_end(link) {
            self.trust.past.ended = Some(ended);
        }
        held
    }

    fn verdict(&mut self, link: &Signed<Report>, at: Timestamp, offset: i64) -> Verdict {
        let entry = self.entry(link);
        self.court.judge(&self.trust, at, offset, entry)
    }

    /// What is looked for in the verdicts of the time of a report, whichever of them the node may have
    /// come to by its clock and its news.
    fn any<T>(
        &mut self,
        link: &Signed<Report>,
        wanted: impl Fn(Verdict) -> Option<T>,
    ) -> Option<T> {
        let at = link.body.at;
        let moments = self.court.moments(at);
        let found = moments.into_iter().find_map(|offset| wanted(self.verdict(link, at, offset)));
        found.or_else(|| wanted(self.verdict(link, at.plus(-VERDICT_S), VERDICT_S)))
    }

    /// The end by an order that the node says it has acted on. That is final, on that node.
    fn own_end(&mut self, link: &Signed<Report>) -> Option<Ended> {
        let report = &link.body;
        if !matches!(report.state, State::Stopped | State::Wiped) || report.code == PARTITIONED {
            return None;
        }
        self.any(link, |verdict| match verdict {
            Verdict::Stop(ended) if matches!(ended.cause, Cause::Cancelled { .. }) => Some(ended),
            Verdict::Stop(_) | Verdict::Run(_) | Verdict::Refuse(_) => None,
        })
    }

    fn held(&mut self, link: &Signed<Report>) -> Result<(), Wrong> {
        let report = &link.body;
        if report.state == State::Wiped {
            self.any(link, |verdict| orders_to_wipe(&verdict, report.at).then_some(()))
                .ok_or_else(unordered)?;
        }
        let is_run = report.ran.is_some() || is_running(report);
        if !is_run && report.state != State::Accepted {
            return Ok(());
        }
        let agreed = match self.agreed(link) {
            Ok(agreed) => agreed,
            Err(wrong) if is_run => return Err(wrong),
            // That nothing ran that way breaks no rule, and counts as no start either.
            Err(_) => return Ok(()),
        };
        self.trust.past.holds = Some(Capacity::default());
        self.trust.past.version = self.trust.past.version.max(report.version);
        if is_run { same_bytes(report, &agreed) } else { Ok(()) }
    }

    /// The version that the report names, if it might run by what the node may have known.
    fn agreed(&mut self, link: &Signed<Report>) -> Result<Box<Agreed>, Wrong> {
        let (report, version) = (&link.body, link.body.version);
        let header = self.case.headers().iter().find(|one| one.body.version == version);
        let Some(header) = header else {
            return Err((Code::NotAgreed, format!("version {version} is not there")));
        };
        if report.header != Some(header.id) {
            return Err((Code::NotAgreed, format!("it ran by another version {version}")));
        }
        let may_run = self.any(link, |verdict| match verdict {
            Verdict::Run(agreed) if agreed.header_id == header.id => Some(agreed),
            Verdict::Run(_) | Verdict::Stop(_) | Verdict::Refuse(_) => None,
        });
        if let Some(agreed) = may_run {
            self.heard = Some(report.at);
            return Ok(agreed);
        }
        let verdict = self.verdict(link, report.at, 0);
        let (code, text) = why_not(version, &verdict, &self.trust.past);
        Err((if self.is_unheard(link, report.at, header) { Code::Unheard } else { code }, text))
    }

    /// Whether the version might run at a time by what the node knew when it last reported what might,
    /// or, if that is later, as long before as the contract lets it go without contact.
    fn is_unheard(
        &mut self,
        link: &Signed<Report>,
        at: Timestamp,
        header: &Signed<Header>,
    ) -> bool {
        let Some(heard) = self.heard else { return false };
        let alone_s = match header.body.execution.on_partition {
            OnPartition::Keep => i64::MAX,
            OnPartition::StopAfterS(seconds) => i64::from(seconds) + CLOCK_S,
        };
        let since = heard.seconds().saturating_sub(at.seconds());
        self.court.moments(heard).into_iter().any(|moment| {
            let offset = since.saturating_add(moment).max(alone_s.saturating_neg());
            let verdict = self.verdict(link, at, offset.min(0));
            matches!(verdict, Verdict::Run(agreed) if agreed.header_id == header.id)
        })
    }

    /// Whether what ran had long been told to end, or to give way to other bytes, before the node
    /// reported an end of it, or anything else, in the same boot.
    fn ran_on(&mut self, run: &Signed<Report>, last: &Signed<Report>) -> Option<Wrong> {
        let by = last.body.at.plus(-STOP_S);
        if last.body.boot != run.body.boot || by <= run.body.at {
            return None;
        }
        let why = match self.verdict(last, by, 0) {
            Verdict::Stop(ended) => why_ended(&ended),
            Verdict::Refuse(refusal) => refusal.message,
            Verdict::Run(agreed) if agreed.header.version > run.body.version => {
                let (_, text) = same_bytes(&run.body, &agreed).err()?;
                format!("version {} was agreed on, and by it {text}", agreed.header.version)
            }
            Verdict::Run(_) => return None,
        };
        let header = self.case.headers().iter().find(|one| Some(one.id) == run.body.header)?;
        let code = if self.is_unheard(last, by, header) { Code::Unheard } else { Code::RanOn };
        Some((code, format!("{why}, and at {} no end was reported", last.body.at)))
    }
}

/// Whether a report says that processes run, with or without what ran.
fn is_running(report: &Report) -> bool {
    match report.state {
        State::Running => true,
        State::Accepted => report.workload.is_some() && report.code == STARTING,
        State::Refused | State::Failed | State::Stopped | State::Wiped | State::Done => false,
    }
}

/// What ran is what was agreed on.
fn same_bytes(report: &Report, agreed: &Agreed) -> Result<(), Wrong> {
    let name = report.workload.as_deref().unwrap_or_default();
    let none = || (Code::NotAgreed, "no such container was agreed on for this node".to_owned());
    let container = match agreed.document.workload(name).map(|workload| &workload.spec) {
        Some(Spec::Container(container)) => container,
        // A volume is there when it runs, and executes nothing.
        Some(Spec::Volume(_)) if report.ran.is_none() => return Ok(()),
        Some(Spec::Volume(_)) | None => return Err(none()),
    };
    let Some(ran) = &report.ran else {
        return Err((Code::Unmeasured, "it ran, and the node does not say which bytes".to_owned()));
    };
    match flist(&agreed.header, container) {
        Some(flist) if flist == ran.flist => Ok(()),
        Some(flist) => Err((Code::OtherBytes, format!("{} ran, {flist} was agreed on", ran.flist))),
        None => Err(none()),
    }
}

/// Data goes by an order with quorum only, and when it says.
fn orders_to_wipe(verdict: &Verdict, at: Timestamp) -> bool {
    match verdict {
        Verdict::Stop(Ended { cause: Cause::Cancelled { retention, .. }, .. }) => match retention {
            Retention::Wipe => true,
            Retention::KeepUntil(until) => *until <= at,
        },
        Verdict::Stop(Ended { cause: Cause::Expired, .. })
        | Verdict::Run(_)
        | Verdict::Refuse(_) => false,
    }
}

fn unordered() -> Wrong {
    (Code::WipedUnordered, "data was deleted without an order that was agreed on".to_owned())
}

/// Why a version might not run.
fn why_not(version: u64, verdict: &Verdict, past: &Past) -> Wrong {
    match verdict {
        Verdict::Run(agreed) if agreed.header.version > version => {
            let later = agreed.header.version;
            (Code::WentBack, format!("version {version} ran when version {later} was agreed on"))
        }
        Verdict::Run(agreed) => {
            let earlier = agreed.header.version;
            (Code::NotAgreed, format!("version {version} ran when version {earlier} was agreed on"))
        }
        Verdict::Stop(ended) => (Code::Ended, why_ended(ended)),
        Verdict::Refuse(_) if version < past.version => {
            (Code::WentBack, format!("version {version} ran after version {}", past.version))
        }
        Verdict::Refuse(Refusal { code, message }) => (code_of(*code), message.clone()),
    }
}

fn why_ended(ended: &Ended) -> String {
    match ended.cause {
        Cause::Expired => format!("it had expired at {}", ended.expires),
        Cause::Cancelled { order, .. } => format!("it was cancelled by {order}"),
    }
}

fn code_of(code: verdict::Code) -> Code {
    use verdict::Code as Rule;
    match code {
        Rule::Malformed
        | Rule::TooLarge
        | Rule::NotLogged
        | Rule::BrokenChain
        | Rule::UnknownIdentity
        | Rule::OwnerSignature
        | Rule::QuorumMissing
        | Rule::Rejected => Code::NotAgreed,
        Rule::WrongNetwork => Code::WrongNetwork,
        Rule::NotYet => Code::TooEarly,
        Rule::TooLate => Code::TooLate,
        Rule::WrongNode | Rule::DocumentMismatch => Code::NoDocument,
        Rule::PoolMismatch | Rule::PoolExpired | Rule::PoolTooSmall | Rule::NoCapacity => {
            Code::Pool
        }
    }
}

/// For each report of a node the next one that says something else of its workload, in one pass from
/// the newest.
fn ends<'a>(about: &[&'a Signed<Report>], case: &Case) -> Vec<Option<&'a Signed<Report>>> {
    let mut next: BTreeMap<&str, &Signed<Report>> = BTreeMap::new();
    let (mut of_all, mut accepted) = (None, None);
    let mut ends = Vec::with_capacity(about.len());
    for link in about.iter().rev() {
        let Some(workload) = link.body.workload.as_deref() else {
            ends.push(None);
            if link.body.state == State::Accepted {
                accepted = Some(*link);
            } else {
                next.clear();
                (of_all, accepted) = (Some(*link), None);
            }
            continue;
        };
        let run = &link.body;
        let dropped = accepted.filter(|link: &&Signed<Report>| drops(case, &link.body, run));
        let told = [dropped, next.get(workload).copied(), of_all];
        ends.push(told.into_iter().flatten().min_by_key(|link| (link.body.seq, link.id)));
        next.insert(workload, link);
    }
    ends.reverse();
    ends
}

/// Whether the version that a node takes up has no such workload any more, or other bytes for it.
fn drops(case: &Case, accepted: &Report, run: &Report) -> bool {
    let header = case.headers().iter().find(|header| header.body.version == accepted.version);
    let Some(header) = header.map(|header| &header.body) else { return false };
    let Ok((document, _)) = case.document(header, &accepted.node) else { return false };
    let name = run.workload.as_deref().unwrap_or_default();
    match document.workload(name).map(|workload| &workload.spec) {
        Some(Spec::Container(container)) => {
            run.ran.as_ref().is_some_and(|ran| flist(header, container) != Some(ran.flist))
        }
        Some(Spec::Volume(_)) => false,
        None => true,
    }
}

fn flist(header: &Header, container: &Container) -> Option<FlistId> {
    let flist = header.flists.iter().find(|flist| flist.name == container.flist);
    flist.map(|flist| flist.digest)
}

/// The newest version that any node says that it may run; 0: none.
pub(super) fn newest(chains: &[Chain], expected: &Expected<'_>) -> u64 {
    let links = chains.iter().flat_map(|chain| &chain.links);
    let told = links.filter(|link| {
        link.body.contract == expected.contract
            && (link.body.state == State::Accepted || link.body.ran.is_some())
    });
    told.map(|link| link.body.version).max().unwrap_or(0)
}

/// Nodes that versions up to the newest one name, and that are not heard of: what they ran is not there.
/// Whom the version in force does not name any more may never have begun.
pub(super) fn check_silent(
    case: &Case,
    (in_force, newest): (u64, u64),
    chains: &[Chain],
    expected: &Expected<'_>,
    findings: &mut Findings,
) {
    let about =
        |chain: &&Chain| chain.links.iter().any(|link| link.body.contract == expected.contract);
    let heard: BTreeSet<NodeId> = chains.iter().filter(about).map(|chain| chain.node).collect();
    let newest = newest.min(case.headers().len() as u64);
    let first = in_force.max(1);
    let named: BTreeSet<NodeId> =
        (first..=newest).flat_map(|version| case.documents(version)).map(|one| one.node).collect();
    for node in named.difference(&heard) {
        let text = format!("node {node}: the contract names it, and no report of it is there");
        findings.add(Code::NoReports, None, text);
    }
}
