//! What netd tells about itself: the reply to `Status`, with problems as sentences. Pure but for
//! the clock that counts down to the next try.

use crate::{
    clock,
    dhcp::{message::Mac, task::View},
    dhcp6,
    kernel::{Nic, Uplinks},
    owner::Problems,
    plan::{Fact, Place},
};
use node_api::netd::{Link, StatusReply, Time};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// What the two clients of a link tell.
pub(crate) type Views = (View, dhcp6::task::View);

/// Joins what the kernel has, what the DHCP clients wait for, and what failed.
pub(crate) fn reply(
    uplinks: &Uplinks,
    views: &BTreeMap<String, Views>,
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

fn link(nic: &Nic, view: Option<&Views>, problems: &Problems, now: Duration) -> Link {
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
fn problem(nic: &Nic, view: Option<&Views>, problems: &Problems, now: Duration) -> Option<String> {
    let failed = problems.steps.iter().find(|(step, _)| concerns(step.fact(), &nic.link));
    failed
        .map(|(_, sentence)| sentence.clone())
        .or_else(|| (!nic.carrier).then(|| "no carrier".to_owned()))
        .or_else(|| view.and_then(|view| unanswered(nic, view, now)))
        .or_else(|| problems.read.clone())
        .or_else(|| problems.firewall.clone())
}

/// Where one of the two protocols gives an address, nobody has to answer by the other.
fn unanswered(nic: &Nic, (v4, v6): &Views, now: Duration) -> Option<String> {
    let has = |wanted: fn(&IpAddr) -> bool| nic.addresses.iter().any(|net| wanted(&net.address));
    let v4 = v4.sentence(now).filter(|_| v4.lease.is_some() || !has(IpAddr::is_ipv6));
    let v6 = v6.sentence(now).filter(|_| v6.lease.is_some() || !has(IpAddr::is_ipv4));
    v4.or(v6)
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
            index: 2,
            need: dhcp6::client::Need::Nothing,
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            driver: "virtio_net".to_owned(),
            carrier,
            addresses: Vec::new(),
        };
        let waiting = View { unanswered: Some((2, second(14))), ..View::default() };
        let waiting = (waiting, dhcp6::task::View::default());
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

    #[test]
    fn a_network_with_one_protocol_is_not_reported_for_lacking_the_other() {
        let second = Duration::from_secs;
        let unanswered4 = View { unanswered: Some((9, second(14))), ..View::default() };
        let unanswered6 =
            dhcp6::task::View { unanswered: Some((9, second(14))), ..Default::default() };
        let nic = |addresses: &[&str]| Nic {
            link: "eth0".to_owned(),
            index: 2,
            mac: [0; 6],
            driver: String::new(),
            carrier: true,
            addresses: addresses
                .iter()
                .map(|text| crate::plan::Net::host(text.parse().unwrap()))
                .collect(),
            need: dhcp6::client::Need::Address,
        };
        let views = (unanswered4, unanswered6);
        for (addresses, sentence) in [
            (&[][..], Some("no DHCP answer after 9 tries, trying again in 4 s")),
            (&["2001:db8::9"], Some("no DHCPv6 answer after 9 tries, trying again in 4 s")),
            (&["10.0.0.9"], Some("no DHCP answer after 9 tries, trying again in 4 s")),
            (&["10.0.0.9", "2001:db8::9"], None),
        ] {
            let problem = unanswered(&nic(addresses), &views, second(10));
            assert_eq!(problem.as_deref(), sentence, "{addresses:?}");
        }
    }
}
