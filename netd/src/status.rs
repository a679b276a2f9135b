//! What netd tells about itself: the reply to `Status`, with problems as sentences. Pure but for
//! the clock that counts down to the next try.

use crate::{
    clock,
    dhcp::{message::Mac, task::View},
    kernel::{Nic, Uplinks},
    owner::Problems,
    plan::{Fact, Place},
};
use node_api::netd::{Link, StatusReply, Time};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Joins what the kernel has, what the DHCP clients wait for, and what failed.
pub(crate) fn reply(
    uplinks: &Uplinks,
    views: &BTreeMap<String, View>,
    problems: &Problems,
    dns: Vec<IpAddr>,
    time: Time,
) -> StatusReply {
    let now = clock::since_boot();
    let links = uplinks.nics.iter().map(|nic| link(nic, views.get(&nic.link), problems, now));
    StatusReply { links: links.collect(), gateways: uplinks.gateways.clone(), dns, time }
}

/// `aa:bb:cc:dd:ee:ff`.
pub(crate) fn mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn link(nic: &Nic, view: Option<&View>, problems: &Problems, now: Duration) -> Link {
    Link {
        name: nic.link.clone(),
        mac: mac(nic.mac),
        driver: nic.driver.clone(),
        carrier: nic.carrier,
        addresses: nic.addresses.iter().map(ToString::to_string).collect(),
        problem: problem(nic, view, problems, now),
    }
}

/// The first thing that stands in the way.
fn problem(nic: &Nic, view: Option<&View>, problems: &Problems, now: Duration) -> Option<String> {
    let failed = problems.steps.iter().find(|(step, _)| concerns(step.fact(), &nic.link));
    failed
        .map(|(_, sentence)| sentence.clone())
        .or_else(|| (!nic.carrier).then(|| "no carrier".to_owned()))
        .or_else(|| view.and_then(|view| view.sentence(now)))
        .or_else(|| problems.read.clone())
        .or_else(|| problems.firewall.clone())
}

fn concerns(fact: &Fact, name: &str) -> bool {
    match fact {
        Fact::Up(Place::Node, link) | Fact::Address(Place::Node, link, _) => link == name,
        Fact::Route(Place::Node, route) => route.link == name,
        Fact::Namespace(_)
        | Fact::Cable { .. }
        | Fact::Up(Place::Container(_), _)
        | Fact::Address(Place::Container(_), ..)
        | Fact::Route(Place::Container(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Step;

    #[test]
    fn a_link_tells_the_first_thing_that_stands_in_its_way() {
        let second = Duration::from_secs;
        let nic = |carrier| Nic {
            link: "eth0".to_owned(),
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            driver: "virtio_net".to_owned(),
            carrier,
            addresses: Vec::new(),
        };
        let waiting = View { unanswered: Some((2, second(14))), ..View::default() };
        let up = Fact::Up(Place::Node, "eth0".to_owned());
        let failing = Problems {
            steps: vec![(Step::Add(up), "add link eth0 up: no firmware".to_owned())],
            ..Problems::default()
        };
        let open = Problems { firewall: Some("running nft".to_owned()), ..Problems::default() };
        let fine = Problems::default();
        for (carrier, view, problems, sentence) in [
            (true, None, &fine, None),
            (false, Some(&waiting), &fine, Some("no carrier")),
            (
                true,
                Some(&waiting),
                &fine,
                Some("no DHCP answer after 2 tries, trying again in 4 s"),
            ),
            (false, Some(&waiting), &failing, Some("add link eth0 up: no firmware")),
            (true, None, &open, Some("running nft")),
        ] {
            let link = link(&nic(carrier), view, problems, second(10));
            assert_eq!(link.mac, "52:54:00:12:34:56");
            assert_eq!(link.problem.as_deref(), sentence);
        }
    }
}
