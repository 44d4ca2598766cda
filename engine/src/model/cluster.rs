//! Members, who votes, and alarms.

use super::Model;
use crate::command::{AlarmAction, AlarmKind, AlarmMember, AlarmRequest, Member};
use crate::error::Refusal;
use crate::store::ConfState;

impl Model {
    /// Sets the cluster's first members. The first such command counts: a second leader may have proposed it again.
    pub(super) fn bootstrap(&mut self, cluster_id: u64, members: &[Member]) {
        if self.bootstrapped {
            return;
        }
        self.bootstrapped = true;
        self.cluster_id = cluster_id;
        self.members = members.iter().map(|member| (member.id, member.clone())).collect();
        let ids = |learners: bool| {
            self.members.values().filter(|m| m.is_learner == learners).map(|m| m.id).collect::<Vec<_>>()
        };
        self.conf = ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() };
    }

    pub(super) fn member_attributes(&mut self, id: u64, name: &str, urls: &[String]) -> Result<(), Refusal> {
        let member = self.members.get_mut(&id).ok_or(Refusal::MemberNotFound)?;
        member.name = name.to_owned();
        member.client_urls = urls.to_vec();
        Ok(())
    }

    /// Lists (of one kind, or all), raises or clears. Raising one that is up answers it again; raising none, and clearing
    /// one that is not up, answers nothing.
    pub(super) fn alarm(&mut self, request: &AlarmRequest) -> Vec<AlarmMember> {
        let alarm = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        match request.action {
            AlarmAction::Get => {
                let wanted =
                    |up: &&AlarmMember| request.alarm == AlarmKind::None || up.alarm == request.alarm;
                self.alarms.iter().filter(wanted).copied().collect()
            }
            AlarmAction::Activate if request.alarm == AlarmKind::None => Vec::new(),
            AlarmAction::Activate => {
                self.alarms.insert(alarm);
                vec![alarm]
            }
            AlarmAction::Deactivate => self.alarms.take(&alarm).into_iter().collect(),
        }
    }

    /// Alarms that are up, by member.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.iter().copied().collect()
    }

    /// The cluster's id, 0 before the bootstrap command.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    /// Who votes.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf
    }

    /// Sets who votes.
    pub fn set_conf_state(&mut self, conf: ConfState) {
        self.conf = conf;
    }
}
