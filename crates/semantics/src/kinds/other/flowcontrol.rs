//! Flow control: schemas and priority levels.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};

use crate::defaults::{fill, fill_number};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape};
use crate::typed::Rules;

const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();
const MATCHING_PRECEDENCE: i32 = 1000;
const CONCURRENCY_SHARES: i32 = 30;

pub struct FlowSchemaRules;

impl Rules for FlowSchemaRules {
    type Object = FlowSchema;
    const SHAPE: Shape = SHAPE;

    fn default(object: &mut FlowSchema) {
        fill_number(&mut object.spec.matching_precedence, MATCHING_PRECEDENCE);
    }
}

pub struct PriorityLevelRules;

impl Rules for PriorityLevelRules {
    type Object = PriorityLevelConfiguration;
    const SHAPE: Shape = SHAPE;

    fn default(object: &mut PriorityLevelConfiguration) {
        let spec = &mut object.spec;
        if let Some(exempt) = &mut spec.exempt {
            fill(&mut exempt.nominal_concurrency_shares, 0);
            fill(&mut exempt.lendable_percent, 0);
        }
        if let Some(limited) = &mut spec.limited {
            fill(&mut limited.nominal_concurrency_shares, CONCURRENCY_SHARES);
            fill(&mut limited.lendable_percent, 0);
            if let Some(queuing) = &mut limited.limit_response.queuing {
                fill_number(&mut queuing.hand_size, 8);
                fill_number(&mut queuing.queues, 64);
                fill_number(&mut queuing.queue_length_limit, 50);
            }
        }
    }
}
