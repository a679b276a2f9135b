//! The boot configuration: what a farmer bakes into the image or gives on the kernel command line.
//!
//! `zos.network=main zos.farm=<identity id> zos.registry=http://10.0.0.1:8000 zos.token=<hex seed>`
//! `zos.ip=dhcp` or `zos.ip=10.0.0.2/24,10.0.0.1` (address/prefix, gateway) `zos.dns=10.0.0.1`
//! `zos.ntp=10.0.0.1` `zos.takeover=<disk serial>,<disk serial>` `zos.lan=open`
//! `zos.metrics=9100` or `zos.metrics=9100,10.0.0.0/24` (port, and who may ask)
//! `zos.log=<key of a log> zos.witness=<key>,<key> zos.quorum=2`
//! `zos.checkpoint=<size>+<root> zos.fresh=900` `zos.bench=poweroff`
//!
//! A list is separated by commas; a repeated key adds to its list. An unknown `zos.` key or a bad
//! value is not fatal: the node must boot to tell what is wrong, so it is kept in
//! [`BootConfig::problems`] and shown on the console.

use serde::{Deserialize, Serialize};
use std::{mem, net::IpAddr};

/// Everything that the kernel command line says to the node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootConfig {
    /// The grid that this node belongs to; `main` unless given.
    pub network: String,
    /// Identity id of the farm, 64 hexadecimal digits.
    pub farm: Option<String>,
    /// Base URLs of the registry, tried in order.
    pub registries: Vec<String>,
    /// Secret seed of an enrolment key, 64 hexadecimal digits.
    pub token: Option<String>,
    /// How the management address is found.
    pub address: AddressConfig,
    /// DNS servers, instead of those that DHCP offers.
    pub dns: Vec<IpAddr>,
    /// Time servers, instead of those that DHCP offers.
    pub ntp: Vec<String>,
    /// Whether containers reach private networks: the farmer's own.
    pub lan: Lan,
    /// Where the node's figures are read, and by whom; `None`: nowhere.
    pub metrics: Option<Metrics>,
    /// Serial numbers of disks that the farmer orders to be wiped and taken over.
    pub takeover: Vec<String>,
    /// The transparency log that has to hold what is started.
    pub log: LogConfig,
    /// Whether the machine powers off as soon as every service is ready, to time the boot.
    pub poweroff_when_ready: bool,
    /// What was given and not understood, as sentences for the console.
    pub problems: Vec<String>,
}

/// How the management address is found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressConfig {
    /// DHCPv4 and IPv6 router advertisements on every physical link.
    #[default]
    Automatic,
    /// A fixed address on the first link with carrier.
    Static {
        /// The node's address.
        address: IpAddr,
        /// Length of the subnet prefix, in bits.
        prefix: u8,
        /// Default gateway.
        gateway: Option<IpAddr>,
    },
}

/// Which log is asked, and which witnesses, as it was given: who asks understands it, or starts
/// nothing. A word that says nothing is not the same as none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogConfig {
    /// Public keys of the log, as c2sp.org/signed-note writes them.
    pub keys: Vec<String>,
    /// Public keys of witnesses.
    pub witnesses: Vec<String>,
    /// How many of them have to sign.
    pub quorum: Vec<String>,
    /// A checkpoint that the log has to continue: its size, `+` and its root, as a checkpoint writes them.
    pub checkpoint: Vec<String>,
    /// How long ago they may have signed, in seconds.
    pub fresh: Vec<String>,
}

impl LogConfig {
    /// Whether no word is about a log.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether containers reach the addresses that are not the internet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lan {
    /// They do not, but for their name servers.
    #[default]
    Closed,
    /// They do: the farmer wants it so.
    Open,
}

/// Where the node's figures are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// TCP port of the node.
    pub port: u16,
    /// Addresses that may ask, with the length of their prefix in bits.
    pub from: Vec<(IpAddr, u8)>,
}

/// Who may ask unless it is said: those who have no address of the internet.
const METRICS_FROM: &str =
    "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10";
/// Each is a rule of the firewall.
const METRICS_FROM_MAX: usize = 16;
/// Whoever serves them is nobody who might open a lower one.
const METRICS_PORT_MIN: u16 = 1024;

impl BootConfig {
    /// Understands the text of `/proc/cmdline`.
    pub fn parse(cmdline: &str) -> Self {
        let mut config = Self { network: "main".to_owned(), ..Self::default() };
        let mut has_metrics = false;
        for word in cmdline.split_ascii_whitespace() {
            let Some(option) = word.strip_prefix("zos.") else { continue };
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            // Who may ask is said once, or nobody may: two words may not mean the same.
            if key == "metrics" && mem::replace(&mut has_metrics, true) {
                config.metrics = None;
                let problem =
                    "boot option zos.metrics is given more than once; it counts as not given";
                config.problems.push(problem.to_owned());
                continue;
            }
            if let Err(problem) = config.set(key, value) {
                config.problems.push(format!("boot option {word}: {problem}"));
            }
        }
        config
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "network" => self.network = name(value)?,
            "farm" => self.farm = Some(hex32(value)?),
            "token" => self.token = Some(hex32(value)?),
            "registry" => self.registries.extend(list(value, url)?),
            "ip" => self.address = address(value)?,
            "dns" => self.dns.extend(list(value, ip)?),
            "ntp" => self.ntp.extend(list(value, |server| Ok(server.to_owned()))?),
            "takeover" => self.takeover.extend(list(value, |serial| Ok(serial.to_owned()))?),
            "log" => self.log.keys.extend(words(value)),
            "witness" => self.log.witnesses.extend(words(value)),
            "quorum" => self.log.quorum.extend(words(value)),
            "checkpoint" => self.log.checkpoint.extend(words(value)),
            "fresh" => self.log.fresh.extend(words(value)),
            "metrics" => self.metrics = Some(metrics(value)?),
            "lan" if value == "closed" => self.lan = Lan::Closed,
            "lan" if value == "open" => self.lan = Lan::Open,
            "bench" if value == "poweroff" => self.poweroff_when_ready = true,
            _ => return Err("is not known; see docs/boot-options.md".to_owned()),
        }
        Ok(())
    }
}

fn list<T>(value: &str, item: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    value.split(',').filter(|part| !part.is_empty()).map(item).collect()
}

/// Also an empty one: it was given, and means nothing.
fn words(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(str::to_owned)
}

fn name(value: &str) -> Result<String, String> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=32).contains(&value.len()) && value.bytes().all(good) {
        Ok(value.to_owned())
    } else {
        Err("a network is named by 1 to 32 of a-z, 0-9 and -".to_owned())
    }
}

fn hex32(value: &str) -> Result<String, String> {
    match hex::decode(value) {
        Ok(bytes) if bytes.len() == 32 => Ok(value.to_ascii_lowercase()),
        _ => Err("needs 64 hexadecimal digits".to_owned()),
    }
}

fn url(value: &str) -> Result<String, String> {
    if value.starts_with("http://") || value.starts_with("https://") {
        Ok(value.trim_end_matches('/').to_owned())
    } else {
        Err("needs a URL that starts with http:// or https://".to_owned())
    }
}

fn ip(value: &str) -> Result<IpAddr, String> {
    value.parse().map_err(|_| format!("{value} is not an IP address"))
}

fn address(value: &str) -> Result<AddressConfig, String> {
    if value == "dhcp" {
        return Ok(AddressConfig::Automatic);
    }
    let (own, gateway) = match value.split_once(',') {
        Some((own, gateway)) => (own, Some(ip(gateway)?)),
        None => (value, None),
    };
    let (own, prefix) = own.split_once('/').ok_or("needs dhcp or ADDRESS/PREFIX[,GATEWAY]")?;
    let own = ip(own)?;
    let longest = if own.is_ipv4() { 32 } else { 128 };
    match prefix.parse() {
        Ok(prefix) if prefix <= longest => {
            Ok(AddressConfig::Static { address: own, prefix, gateway })
        }
        _ => Err(format!("the prefix length is 0 to {longest}")),
    }
}

fn metrics(value: &str) -> Result<Metrics, String> {
    let (port, from) = value.split_once(',').unwrap_or((value, METRICS_FROM));
    let port = port.parse().ok().filter(|port| *port >= METRICS_PORT_MIN);
    let port = port.ok_or("needs PORT[,ADDRESS[/PREFIX]...] with a port from 1024 to 65535")?;
    let from = from.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
    if from.len() > METRICS_FROM_MAX {
        return Err(format!("has more than {METRICS_FROM_MAX} addresses"));
    }
    Ok(Metrics { port, from })
}

fn range(value: &str) -> Result<(IpAddr, u8), String> {
    let (address, prefix) = value.split_once('/').map_or((value, None), |(a, p)| (a, Some(p)));
    let address = ip(address)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match prefix.map_or(Ok(longest), str::parse) {
        Ok(prefix) if prefix <= longest => Ok((address, prefix)),
        _ => Err(format!("the prefix length is 0 to {longest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_command_line_is_understood() {
        let farm = "ab".repeat(32);
        let config = BootConfig::parse(&format!(
            "quiet console=ttyS0 zos.network=test zos.farm={farm} zos.registry=http://10.0.0.1:80/,https://b \
             zos.ip=10.0.0.2/24,10.0.0.1 zos.dns=10.0.0.3 zos.ntp=t1,t2 zos.takeover=S1,S2"
        ));
        assert_eq!(config.network, "test");
        assert_eq!(config.farm.as_deref(), Some(farm.as_str()));
        assert_eq!(config.registries, ["http://10.0.0.1:80", "https://b"]);
        assert_eq!(config.dns, ["10.0.0.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.ntp, ["t1", "t2"]);
        assert_eq!(config.takeover, ["S1", "S2"]);
        let AddressConfig::Static { prefix, gateway, .. } = config.address else { panic!() };
        assert_eq!((prefix, gateway), (24, Some("10.0.0.1".parse().unwrap())));
        assert!(config.problems.is_empty());
    }

    #[test]
    fn a_bench_ends_in_a_power_off_and_in_nothing_else() {
        assert!(BootConfig::parse("zos.bench=poweroff").poweroff_when_ready);
        for other in ["", "zos.bench", "zos.bench=shell", "bench=poweroff"] {
            assert!(!BootConfig::parse(other).poweroff_when_ready, "{other}");
        }
        assert_eq!(BootConfig::parse("zos.bench=shell").problems.len(), 1);
    }

    #[test]
    fn a_log_that_was_given_is_never_lost() {
        let config = BootConfig::parse(
            "zos.log=a+1+b zos.witness=c,d zos.witness=e zos.quorum=2 zos.checkpoint=3+d= zos.fresh=900",
        );
        assert_eq!(config.log.keys, ["a+1+b"]);
        assert_eq!(config.log.witnesses, ["c", "d", "e"]);
        assert_eq!(config.log.quorum, ["2"]);
        assert_eq!(
            (config.log.checkpoint, config.log.fresh),
            (vec!["3+d=".into()], vec!["900".into()])
        );
        assert!(BootConfig::parse("log=a zos.lan=open").log.is_empty());
        for given in
            ["zos.log", "zos.log=", "zos.witness=", "zos.quorum", "zos.checkpoint", "zos.fresh="]
        {
            assert!(!BootConfig::parse(given).log.is_empty(), "{given}");
        }
    }

    #[test]
    fn figures_are_shown_to_those_who_are_named() {
        let known = |text: &str| BootConfig::parse(text).metrics;
        let some = known("zos.metrics=9100").unwrap();
        assert_eq!((some.port, some.from.len()), (9100, 6));
        assert!(some.from.iter().all(|(_, prefix)| *prefix > 0));
        let named = known("zos.metrics=9100,198.51.100.7,2001:db8::/32,0.0.0.0/0").unwrap();
        let text = named.from.iter().map(|(address, prefix)| format!("{address}/{prefix}"));
        let text: Vec<String> = text.collect();
        assert_eq!(text, ["198.51.100.7/32", "2001:db8::/32", "0.0.0.0/0"]);
        let many = format!("zos.metrics=9100{}", ",10.0.0.1".repeat(METRICS_FROM_MAX + 1));
        for bad in [
            "zos.metrics",
            "zos.metrics=",
            "zos.metrics=80",
            "zos.metrics=65536",
            "zos.metrics=9100,",
            "zos.metrics=9100,lan",
            "zos.metrics=9100,10.0.0.0/33",
            "zos.metrics=9100,10.0.0.0/-1",
            "zos.metrics=9100,10.0.0.0/",
            &many,
        ] {
            let config = BootConfig::parse(bad);
            assert_eq!((config.metrics, config.problems.len()), (None, 1), "{bad}");
            // One that was mistyped is not made good by another one, nor does it stay beside it.
            for both in [format!("{bad} zos.metrics=9100"), format!("zos.metrics=9100 {bad}")] {
                assert_eq!(known(&both), None, "{both}");
            }
        }
        let twice = BootConfig::parse("zos.metrics=9100,10.0.0.1 zos.metrics=9100,10.0.0.2");
        assert_eq!((twice.metrics, twice.problems.len()), (None, 1));
        assert_eq!(known("metrics=9100"), None);
    }

    #[test]
    fn the_lan_is_open_only_to_those_who_say_so() {
        assert_eq!(BootConfig::parse("zos.lan=open").lan, Lan::Open);
        for other in ["", "zos.lan", "zos.lan=", "zos.lan=closed", "zos.lan=OPEN", "lan=open"] {
            assert_eq!(BootConfig::parse(other).lan, Lan::Closed, "{other}");
        }
        assert_eq!(BootConfig::parse("zos.lan=ajar").problems.len(), 1);
        assert!(BootConfig::parse("zos.lan=open zos.lan=closed").problems.is_empty());
    }

    #[test]
    fn bad_options_are_reported_and_the_rest_is_kept() {
        let config = BootConfig::parse(
            "zos.farm=xyz zos.typo=1 zos.ip=10.0.0.2 zos.dns=none zos.network=UPPER zos.ntp=t1",
        );
        assert_eq!(config.problems.len(), 5);
        assert_eq!(config.ntp, ["t1"]);
        assert_eq!(config.network, "main");
    }
}
