//! All Services' rules together, and the transactions that keep the kernel in step with them.
//!
//! ```text
//! update(service) ... update(service) -> take_transaction(): only what changed
//! full(): everything, for a start or after a failure
//! ```
//!
//! Invariant: applying a full transaction and then every taken one in order leaves the kernel as a full transaction at the
//! end would. When one could not be applied, only `full` restores that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::element::{Clients, Element, Family, Frontend, Protocol, Value};
use crate::node::NodeView;
use crate::rules::{Object, ServiceRules, derive_rules};
use crate::skeleton::{TABLE, render_skeleton};

/// What to tell nftables, and which UDP flows must forget their backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Text for `nft -f -`: one atomic transaction.
    pub script: String,
    /// UDP has no end of connection: flows tracked towards anything but these backends are stale once `script` is in force.
    pub udp: Vec<UdpFrontend>,
}

/// A UDP frontend and where it leads now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpFrontend {
    pub frontend: Frontend,
    pub backends: BTreeSet<SocketAddr>,
}

/// The node's proxy state. See the module's text.
#[derive(Debug)]
pub struct Proxy {
    node: NodeView,
    services: HashMap<Arc<str>, ServiceRules>,
    /// Who wants an element and with which value; the first by name wins where two Services claim the same address.
    claims: BTreeMap<Element, BTreeMap<Arc<str>, Value>>,
    /// Chains that choose among a number of backends. They are few and stay.
    picks: BTreeSet<(Family, String)>,
    families: BTreeSet<Family>,
    /// What the kernel has of all that changed since the last transaction.
    touched: BTreeMap<Element, Option<Value>>,
    touched_objects: BTreeMap<String, Option<Object>>,
    objects: BTreeMap<String, Object>,
}

impl Proxy {
    /// No Services yet. The first transaction to apply is [`Proxy::full`].
    pub fn new(node: NodeView) -> Self {
        Self {
            node,
            services: HashMap::new(),
            claims: BTreeMap::new(),
            picks: BTreeSet::new(),
            families: BTreeSet::new(),
            touched: BTreeMap::new(),
            touched_objects: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    pub fn node(&self) -> &NodeView {
        &self.node
    }

    /// Changes what is known of the node; every Service must be updated again afterwards.
    pub fn set_node(&mut self, node: NodeView) {
        self.node = node;
    }

    /// Takes in the present state of one Service (`namespace/name`), `None` when it is gone.
    pub fn update(&mut self, name: &str, service: Option<&Service>, slices: &[Arc<EndpointSlice>]) {
        let old = self.services.remove(name).unwrap_or_default();
        let new =
            service.map(|service| derive_rules(name, service, slices, &self.node, &old.slots)).unwrap_or_default();
        let name: Arc<str> = Arc::from(name);
        for (element, value) in old.elements.iter().filter(|(element, _)| !new.elements.contains_key(element)) {
            self.change_claim(*element, &name, Some(value), None);
        }
        for (element, value) in &new.elements {
            self.change_claim(*element, &name, old.elements.get(element), Some(value));
        }
        for (object, state) in old.objects.iter().filter(|(object, _)| !new.objects.contains_key(*object)) {
            self.objects.remove(object);
            self.touched_objects.entry(object.clone()).or_insert_with(|| Some(state.clone()));
        }
        for (object, state) in new.objects.iter().filter(|(object, state)| old.objects.get(*object) != Some(*state)) {
            let before = self.objects.insert(object.clone(), state.clone());
            self.touched_objects.entry(object.clone()).or_insert(before);
        }
        if service.is_some() {
            self.services.insert(name, new);
        }
    }

    /// What leads from the last transaction to now; `None` when nothing changed.
    pub fn take_transaction(&mut self) -> Option<Transaction> {
        let touched = std::mem::take(&mut self.touched);
        let touched_objects = std::mem::take(&mut self.touched_objects);
        let mut script = Script::default();
        let changed: Vec<(Element, Option<Value>, Option<Value>)> = touched
            .into_iter()
            .map(|(element, before)| (element, before, self.effective(&element).cloned()))
            .filter(|(_, before, after)| before != after)
            .collect();
        for (element, _, after) in &changed {
            self.prepare(*element, after.as_ref(), &mut script);
        }
        for (name, before) in &touched_objects {
            match (before, self.objects.get(name)) {
                (before, Some(now)) if before.as_ref() != Some(now) => script.define(name, now, before.is_some()),
                (Some(before), None) => script.remove(name, before),
                _ => {}
            }
        }
        for (element, before, after) in &changed {
            if before.is_some() {
                script.delete_element(element);
            }
            if let Some(after) = after {
                script.add_element(element, after);
            }
        }
        let udp = self.udp_frontends(changed.iter().map(|(element, ..)| element));
        let script = script.render();
        (!script.is_empty()).then_some(Transaction { script, udp })
    }

    /// Everything from nothing; forgets what was changed so far.
    pub fn full(&mut self) -> Transaction {
        self.touched.clear();
        self.touched_objects.clear();
        self.picks.clear();
        self.families.clear();
        let mut script = Script::default();
        self.ensure_family(Family::V4, &mut script);
        let elements: Vec<(Element, Value)> = self
            .claims
            .iter()
            .filter_map(|(element, claims)| Some((*element, claims.values().next()?.clone())))
            .collect();
        for (element, value) in &elements {
            self.prepare(*element, Some(value), &mut script);
            script.add_element(element, value);
        }
        for (name, object) in &self.objects {
            script.define(name, object, false);
        }
        let udp = self.udp_frontends(elements.iter().map(|(element, _)| element));
        Transaction { script: script.render(), udp }
    }

    fn effective(&self, element: &Element) -> Option<&Value> {
        self.claims.get(element)?.values().next()
    }

    fn change_claim(&mut self, element: Element, name: &Arc<str>, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        let before = self.effective(&element).cloned();
        self.touched.entry(element).or_insert(before);
        let claims = self.claims.entry(element).or_default();
        match new {
            Some(value) => {
                claims.insert(name.clone(), value.clone());
            }
            None => {
                claims.remove(name);
                if claims.is_empty() {
                    self.claims.remove(&element);
                }
            }
        }
    }

    /// Makes sure that the table and the chain an element leads to exist.
    fn prepare(&mut self, element: Element, value: Option<&Value>, script: &mut Script) {
        self.ensure_family(element.family(), script);
        let Some(Value::Pick(count)) = value else { return };
        if let Some((chain, rule)) = element.pick(*count)
            && self.picks.insert((element.family(), chain.clone()))
        {
            script.define(&chain, &Object::Chain(element.family(), vec![rule]), false);
        }
    }

    fn ensure_family(&mut self, family: Family, script: &mut Script) {
        if self.families.insert(family) {
            script.tables.push_str(&render_skeleton(family, &self.node));
        }
    }

    /// The UDP frontends among `elements` with their present backends.
    fn udp_frontends<'a>(&self, elements: impl Iterator<Item = &'a Element>) -> Vec<UdpFrontend> {
        let frontends: BTreeSet<Frontend> = elements
            .filter_map(|element| match element {
                Element::Dispatch(_, frontend) | Element::Backend(_, frontend, _) => Some(*frontend),
                Element::Refuse(_) | Element::Guard(_) | Element::Hairpin(_) => None,
            })
            .filter(|frontend| frontend.protocol == Protocol::Udp)
            .collect();
        frontends.into_iter().map(|frontend| UdpFrontend { backends: self.backends_of(frontend), frontend }).collect()
    }

    fn backends_of(&self, frontend: Frontend) -> BTreeSet<SocketAddr> {
        let owner = [Clients::Everyone, Clients::Outside]
            .iter()
            .find_map(|clients| self.claims.get(&Element::Dispatch(*clients, frontend))?.keys().next());
        let rules = owner.and_then(|name| self.services.get(name));
        rules.and_then(|rules| rules.udp.get(&frontend)).cloned().unwrap_or_default()
    }
}

/// A transaction under construction, by the order nftables needs.
#[derive(Debug, Default)]
struct Script {
    tables: String,
    declarations: String,
    rules: String,
    deletions: BTreeMap<(Family, String), Vec<String>>,
    additions: BTreeMap<(Family, String), Vec<String>>,
    flushes: String,
    removals: String,
}

impl Script {
    fn define(&mut self, name: &str, object: &Object, exists: bool) {
        match object {
            Object::Set(family, declaration) => {
                self.declarations += &format!("add set {} {TABLE} {name} {{ {declaration} }}\n", family.name());
            }
            Object::Chain(family, rules) => {
                let ip = family.name();
                if exists {
                    self.declarations += &format!("flush chain {ip} {TABLE} {name}\n");
                } else {
                    self.declarations += &format!("add chain {ip} {TABLE} {name}\n");
                }
                for rule in rules {
                    self.rules += &format!("add rule {ip} {TABLE} {name} {rule}\n");
                }
            }
        }
    }

    /// Chains that refer to each other or to sets are emptied before any is deleted; names sort chains (`sticky_`, `to_`)
    /// after sets (`seen_`), so sets are deleted last.
    fn remove(&mut self, name: &str, object: &Object) {
        match object {
            Object::Set(family, _) => self.removals += &format!("delete set {} {TABLE} {name}\n", family.name()),
            Object::Chain(family, _) => {
                self.flushes += &format!("flush chain {} {TABLE} {name}\n", family.name());
                self.removals.insert_str(0, &format!("delete chain {} {TABLE} {name}\n", family.name()));
            }
        }
    }

    fn delete_element(&mut self, element: &Element) {
        self.deletions.entry((element.family(), element.container())).or_default().push(element.key());
    }

    fn add_element(&mut self, element: &Element, value: &Value) {
        self.additions.entry((element.family(), element.container())).or_default().push(element.entry(value));
    }

    fn render(self) -> String {
        let list = |verb: &str, elements: &BTreeMap<(Family, String), Vec<String>>| -> String {
            let line = |((family, container), entries): (&(Family, String), &Vec<String>)| {
                format!("{verb} element {} {TABLE} {container} {{ {} }}\n", family.name(), entries.join(", "))
            };
            elements.iter().map(line).collect()
        };
        let deletions = list("delete", &self.deletions);
        let additions = list("add", &self.additions);
        [self.tables, self.declarations, self.rules, deletions, additions, self.flushes, self.removals].concat()
    }
}

#[cfg(test)]
mod tests;
