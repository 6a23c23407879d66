//! Circles in a graph, and a shortest one of each.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// For every set of nodes that reach each other: the set, and a shortest circle within it.
pub fn circles(nodes: usize, arrows: &BTreeSet<(usize, usize)>) -> Vec<(Vec<usize>, Vec<usize>)> {
    let reach: Vec<BTreeSet<usize>> = (0..nodes).map(|node| reached_from(node, arrows)).collect();
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for node in 0..nodes {
        if !reach[node].contains(&node) || done.contains(&node) {
            continue;
        }
        let members: Vec<usize> = reach[node].iter().copied().filter(|other| reach[*other].contains(&node)).collect();
        done.extend(members.iter().copied());
        let shortest = members.iter().filter_map(|start| shortest_from(*start, arrows)).min_by_key(Vec::len);
        found.push((members, shortest.unwrap()));
    }
    found
}

fn next_of(node: usize, arrows: &BTreeSet<(usize, usize)>) -> impl Iterator<Item = usize> {
    arrows.range((node, 0)..=(node, usize::MAX)).map(|(_, to)| *to)
}

fn reached_from(start: usize, arrows: &BTreeSet<(usize, usize)>) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(node) = open.pop() {
        for next in next_of(node, arrows) {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

/// A shortest way from `start` back to it: its nodes, `start` once.
fn shortest_from(start: usize, arrows: &BTreeSet<(usize, usize)>) -> Option<Vec<usize>> {
    let mut before = HashMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        for next in next_of(node, arrows) {
            if next == start {
                let mut way = vec![node];
                while way[way.len() - 1] != start {
                    way.push(before[&way[way.len() - 1]]);
                }
                way.reverse();
                return Some(way);
            }
            if let Entry::Vacant(unseen) = before.entry(next) {
                unseen.insert(node);
                open.push_back(next);
            }
        }
    }
    None
}
