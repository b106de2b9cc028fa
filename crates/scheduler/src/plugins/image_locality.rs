//! ImageLocality: prefers nodes that already hold the Pod's images, weighed by how many nodes hold them.

use std::collections::HashMap;

use crate::plugin::{Plugin, SCORE_MAX};
use crate::snapshot::{NodeView, PodView};

/// Below this many bytes on the node, locality is worth nothing; above the upper bound it is worth all. Upstream's figures.
const BYTES_MIN: i64 = 23 * 1024 * 1024;
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodView, nodes: &[&NodeView], total_nodes: usize) -> Vec<i64> {
        let images = derive_images(pod);
        let spread: HashMap<&String, i64> =
            images.iter().map(|i| (i, nodes.iter().filter(|n| n.images.contains_key(i)).count() as i64)).collect();
        let max = BYTES_MAX_PER_CONTAINER * images.len().max(1) as i64;
        let score = |node: &&NodeView| {
            let local = |image: &String| {
                let bytes = node.images.get(image).copied().unwrap_or(0);
                bytes * spread.get(image).copied().unwrap_or(0) / total_nodes.max(1) as i64
            };
            let sum = images.iter().map(local).sum::<i64>().clamp(BYTES_MIN, max);
            SCORE_MAX * (sum - BYTES_MIN) / (max - BYTES_MIN)
        };
        nodes.iter().map(score).collect()
    }
}

/// The images of all containers, with `:latest` where neither tag nor digest is given.
fn derive_images(pod: &PodView) -> Vec<String> {
    let Some(spec) = &pod.pod.spec else { return Vec::new() };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let image = |text: &str| {
        let last = text.rsplit('/').next().unwrap_or(text);
        if last.contains(':') || last.contains('@') { text.to_owned() } else { format!("{text}:latest") }
    };
    containers.filter_map(|c| c.image.as_deref().map(image)).collect()
}
