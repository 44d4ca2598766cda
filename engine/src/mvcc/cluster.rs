//! Members, who votes, and alarms: small, kept whole in memory, written to `State` when they change.
//!
//! ```text
//! State    key "cluster" -> 0 | bytes      or, where they are many      1 | RunRef
//!
//! bytes    version:u8 = 1 | bootstrapped:u8 | cluster_id | members | voters | learners | voters_outgoing | learners_next
//!            | auto_leave:u8 | alarms
//! member   id | name | peer_urls | client_urls | is_learner:u8
//! alarm    member_id | kind:u8 (0 none, 1 no space, 2 corrupt)
//! ```
//! Numbers are varints; a list, and a string (UTF-8), has its length before it.

use super::apply::Mvcc;
use super::cell::{Malformed, Read, Reader};
use super::record::put_varint;
use super::view::View;
use crate::command::{AlarmAction, AlarmKind, AlarmMember, AlarmRequest, Member};
use crate::error::{ReadError, Refusal};
use crate::pager::page::{RunRef, TreeId};
use crate::pager::root::Cluster;
use crate::pager::{Paged, Pages, PagesMut};
use crate::store::ConfState;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEY: &[u8] = b"cluster";
const VERSION: u8 = 1;
const INLINE: u8 = 0;
const IN_RUN: u8 = 1;
/// Bytes that stand in the tree itself.
const INLINE_BYTES_MAX: usize = 1024;

impl<P: PagesMut> Mvcc<P> {
    /// Sets the cluster's first members. The first such command counts: a second leader may have proposed it again.
    pub(super) fn bootstrap(&mut self, cluster_id: u64, members: &[Member]) -> Paged<()> {
        if self.cluster.bootstrapped {
            return Ok(());
        }
        let members: BTreeMap<_, _> = members.iter().map(|member| (member.id, member.clone())).collect();
        let ids = |learners: bool| {
            members.values().filter(|m| m.is_learner == learners).map(|m| m.id).collect::<Vec<_>>()
        };
        let conf = ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() };
        let alarms = self.cluster.alarms.clone();
        self.set_cluster(Cluster { bootstrapped: true, cluster_id, members, conf, alarms })
    }

    pub(super) fn member_attributes(
        &mut self,
        id: u64,
        name: &str,
        urls: &[String],
    ) -> Result<(), ReadError> {
        let mut cluster = Cluster::clone(&self.cluster);
        let member = cluster.members.get_mut(&id).ok_or(Refusal::MemberNotFound)?;
        member.name = name.to_owned();
        member.client_urls = urls.to_vec();
        Ok(self.set_cluster(cluster)?)
    }

    /// Lists (of one kind, or all), raises or clears. Raising one that is up answers it again; raising none, and clearing
    /// one that is not up, answers nothing.
    pub(super) fn alarm(&mut self, request: &AlarmRequest) -> Paged<Vec<AlarmMember>> {
        let alarm = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        match request.action {
            AlarmAction::Get => {
                let wanted =
                    |up: &&AlarmMember| request.alarm == AlarmKind::None || up.alarm == request.alarm;
                Ok(self.cluster.alarms.iter().filter(wanted).copied().collect())
            }
            AlarmAction::Activate if request.alarm == AlarmKind::None => Ok(Vec::new()),
            AlarmAction::Activate => {
                let mut cluster = Cluster::clone(&self.cluster);
                if cluster.alarms.insert(alarm) {
                    self.set_cluster(cluster)?;
                }
                Ok(vec![alarm])
            }
            AlarmAction::Deactivate => {
                let mut cluster = Cluster::clone(&self.cluster);
                let cleared = cluster.alarms.take(&alarm);
                if cleared.is_some() {
                    self.set_cluster(cluster)?;
                }
                Ok(cleared.into_iter().collect())
            }
        }
    }

    /// Sets who votes.
    ///
    /// # Errors
    /// The fault met.
    pub fn set_conf_state(&mut self, conf: ConfState) -> Paged<()> {
        if self.cluster.conf == conf {
            return Ok(());
        }
        self.set_cluster(Cluster { conf, ..Cluster::clone(&self.cluster) })
    }

    pub(super) fn set_cluster(&mut self, cluster: Cluster) -> Paged<()> {
        let bytes = encode(&cluster);
        self.cluster = Arc::new(cluster);
        self.put_cluster(&bytes)
    }

    fn put_cluster(&mut self, bytes: &[u8]) -> Paged<()> {
        if let Some(run) = self.view().cluster_run()? {
            self.pages.free_run(&run);
        }
        let mut value = Vec::with_capacity(1 + INLINE_BYTES_MAX);
        if bytes.len() <= INLINE_BYTES_MAX {
            value.push(INLINE);
            value.extend_from_slice(bytes);
        } else {
            value.push(IN_RUN);
            value.extend_from_slice(&self.pages.new_run(TreeId::State, bytes).encode());
        }
        self.insert(TreeId::State, KEY, &value)
    }

    /// Moves the run that the cluster stands in, if it does and `is_to_move` says so.
    pub(super) fn move_cluster(&mut self, is_to_move: impl Fn(&P, &RunRef) -> bool) -> Paged<bool> {
        match self.view().cluster_run()? {
            Some(run) if is_to_move(&self.pages, &run) => {
                let bytes = self.pages.run(TreeId::State, &run)?;
                self.put_cluster(&bytes).map(|()| true)
            }
            _ => Ok(false),
        }
    }
}

impl<P: Pages> View<'_, P> {
    /// What stands in the tree, `None` if nothing does.
    pub fn stored_cluster(&self) -> Paged<Option<Cluster>> {
        let Some(value) = self.get(TreeId::State, KEY)? else { return Ok(None) };
        let cluster = match self.cluster_run()? {
            Some(run) => decode(&self.pages.run(TreeId::State, &run)?),
            None => decode(value.get(1..).unwrap_or_default()),
        };
        cluster.map(Some).map_err(|Malformed| {
            let found = format!("version {:?}, or other bytes", value.get(1));
            self.fault(TreeId::State, &format!("a cluster's state of version {VERSION}"), &found)
        })
    }

    /// The run that it stands in, if it stands in one.
    pub(super) fn cluster_run(&self) -> Paged<Option<RunRef>> {
        let Some(value) = self.get(TreeId::State, KEY)? else { return Ok(None) };
        let mut reader = Reader::new(value);
        self.read(TreeId::State, reader.byte().and_then(|form| reader.run_if(form == IN_RUN)))
    }
}

fn encode(cluster: &Cluster) -> Vec<u8> {
    let mut out = vec![VERSION, u8::from(cluster.bootstrapped)];
    put_varint(&mut out, cluster.cluster_id);
    put_varint(&mut out, cluster.members.len() as u64);
    for member in cluster.members.values() {
        put_varint(&mut out, member.id);
        put_string(&mut out, &member.name);
        put_strings(&mut out, &member.peer_urls);
        put_strings(&mut out, &member.client_urls);
        out.push(u8::from(member.is_learner));
    }
    let conf = &cluster.conf;
    for ids in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
        put_varint(&mut out, ids.len() as u64);
        ids.iter().for_each(|id| put_varint(&mut out, *id));
    }
    out.push(u8::from(conf.auto_leave));
    put_varint(&mut out, cluster.alarms.len() as u64);
    for alarm in &cluster.alarms {
        put_varint(&mut out, alarm.member_id);
        out.push(match alarm.alarm {
            AlarmKind::None => 0,
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
        });
    }
    out
}

fn put_string(out: &mut Vec<u8>, string: &str) {
    put_varint(out, string.len() as u64);
    out.extend_from_slice(string.as_bytes());
}

fn put_strings(out: &mut Vec<u8>, strings: &[String]) {
    put_varint(out, strings.len() as u64);
    strings.iter().for_each(|string| put_string(out, string));
}

fn decode(bytes: &[u8]) -> Read<Cluster> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != VERSION {
        return Err(Malformed);
    }
    let bootstrapped = flag(&mut reader)?;
    let cluster_id = reader.varint()?;
    let members = list(&mut reader, |reader| {
        Ok(Member {
            id: reader.varint()?,
            name: string(reader)?,
            peer_urls: list(reader, string)?,
            client_urls: list(reader, string)?,
            is_learner: flag(reader)?,
        })
    })?;
    let conf = ConfState {
        voters: list(&mut reader, Reader::varint)?,
        learners: list(&mut reader, Reader::varint)?,
        voters_outgoing: list(&mut reader, Reader::varint)?,
        learners_next: list(&mut reader, Reader::varint)?,
        auto_leave: flag(&mut reader)?,
    };
    let alarms = list(&mut reader, |reader| {
        let member_id = reader.varint()?;
        let alarm = match reader.byte()? {
            0 => AlarmKind::None,
            1 => AlarmKind::NoSpace,
            2 => AlarmKind::Corrupt,
            _ => return Err(Malformed),
        };
        Ok(AlarmMember { member_id, alarm })
    })?;
    reader.end()?;
    let members = members.into_iter().map(|member| (member.id, member)).collect();
    Ok(Cluster { bootstrapped, cluster_id, members, conf, alarms: alarms.into_iter().collect() })
}

fn flag(reader: &mut Reader<'_>) -> Read<bool> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

fn string(reader: &mut Reader<'_>) -> Read<String> {
    let length = reader.varint()?;
    let bytes = reader.bytes(length)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

/// A list; no length is believed before the elements turn out to be there.
fn list<'a, T>(reader: &mut Reader<'a>, element: impl Fn(&mut Reader<'a>) -> Read<T>) -> Read<Vec<T>> {
    let length = reader.varint()?;
    let mut elements = Vec::new();
    for _ in 0..length {
        elements.push(element(reader)?);
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let member = Member {
            id: u64::MAX,
            name: "one".to_owned(),
            peer_urls: vec!["http://127.0.0.1:2380".to_owned(), String::new()],
            client_urls: vec![],
            is_learner: true,
        };
        Cluster {
            bootstrapped: true,
            cluster_id: 77,
            members: [member, Member::default()].map(|member| (member.id, member)).into(),
            conf: ConfState {
                voters: vec![0],
                learners: vec![u64::MAX],
                voters_outgoing: vec![1, 2],
                learners_next: vec![300],
                auto_leave: true,
            },
            alarms: [AlarmKind::None, AlarmKind::NoSpace, AlarmKind::Corrupt]
                .map(|alarm| AlarmMember { member_id: 9, alarm })
                .into(),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for cluster in [Cluster::default(), cluster()] {
            assert_eq!(decode(&encode(&cluster)), Ok(cluster));
        }
    }

    #[test]
    fn other_bytes_are_refused_and_nothing_panics() {
        let bytes = encode(&cluster());
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Err(Malformed));
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_ne!(decode(&damaged), Ok(cluster()));
            }
        }
        assert_eq!(decode(&[VERSION + 1]), Err(Malformed));
        let extra = [bytes, vec![0]].concat();
        assert_eq!(decode(&extra), Err(Malformed));
    }
}
