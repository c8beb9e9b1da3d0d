"""Analyses a network of people, machines or payments: who matters, which groups there are, how to get from A to B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import networkx as nx

EDGES_MAX = 10_000
# Betweenness looks at every pair of nodes; in larger networks it is estimated from the ways of so many of them.
EXACT_NODES_MAX, PIVOTS = 500, 64
PAIRS_MAX = 500_000
# Louvain's order is drawn at random; the same network shall give the same groups.
SEED = 0

Edges = Annotated[
    list[tuple[str, str, float]], "from, to, weight above 0", {"minItems": 1, "maxItems": EDGES_MAX}
]


@dataclass
class Node:
    """A node that matters: by whom it knows (PageRank) and by how many ways lead over it (betweenness)."""

    node: str
    pagerank: float
    betweenness: float
    degree: int


@dataclass
class Analysis:
    """A network at a glance."""

    nodes: int
    edges: int
    density: float
    components: int
    clustering: float
    modularity: float
    communities: list[list[str]]
    central: list[Node]
    bridges: list[tuple[str, str]]


@dataclass
class Way:
    """The shortest way between two nodes and its length; no node and -1 if there is none."""

    nodes: list[str]
    length: float


@dataclass
class Link:
    """Two nodes that are not connected and have so much in common that they might be (Adamic and Adar)."""

    first: str
    second: str
    score: float


class Graph:
    """NetworkX behind three questions."""

    def setup(self) -> None:
        """Rank a tiny network, as the parts that do it are loaded by their first use."""
        nx.pagerank(nx.path_graph(2))

    def analyse(
        self,
        edges: Edges,
        directed: bool = False,
        top: Annotated[int, {"minimum": 1, "maximum": 100}] = 10,
    ) -> Analysis:
        """Groups, central nodes, bridges and figures of a network."""
        graph = build(edges, directed)
        plain = nx.Graph(graph)
        groups = nx.community.louvain_communities(plain, weight="weight", seed=SEED)
        ranks = nx.pagerank(graph, weight="weight")
        pivots = None if len(graph) <= EXACT_NODES_MAX else PIVOTS
        between = nx.betweenness_centrality(graph, k=pivots, seed=SEED)
        best = sorted(graph, key=lambda node: (-ranks[node], node))[:top]
        return Analysis(
            nodes=len(graph),
            edges=graph.number_of_edges(),
            density=round(nx.density(graph), 6),
            components=nx.number_connected_components(plain),
            clustering=round(nx.average_clustering(plain), 4),
            modularity=round(nx.community.modularity(plain, groups, weight="weight"), 4),
            communities=sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group)),
            central=[
                Node(node, round(ranks[node], 5), round(between[node], 5), graph.degree(node))
                for node in best
            ],
            bridges=sorted((min(edge), max(edge)) for edge in nx.bridges(plain))[:top],
        )

    def route(self, edges: Edges, source: str, target: str, directed: bool = False) -> Way:
        """The way with the smallest sum of weights."""
        graph = build(edges, directed)
        for node in (source, target):
            if node not in graph:
                raise ValueError(f"{node[:60]} is not in the network")
        try:
            length, nodes = nx.single_source_dijkstra(graph, source, target)
        except nx.NetworkXNoPath:
            return Way([], -1.0)
        return Way(nodes, round(float(length), 9))

    def suggest(self, edges: Edges, top: Annotated[int, {"minimum": 1, "maximum": 100}] = 10) -> list[Link]:
        """Pairs that are not connected and probably should be."""
        graph = nx.Graph(build(edges, False))
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
        if sum(degree * degree for _, degree in graph.degree()) > 2 * PAIRS_MAX:
            raise ValueError(f"more than {PAIRS_MAX} pairs have a common neighbour; send a smaller network")
        # Only nodes with a common neighbour can score, and these are few.
        pairs = {
            (min(one, other), max(one, other))
            for node in graph
            for one in graph[node]
            for other in graph[node]
            if one < other and not graph.has_edge(one, other)
        }
        scored = nx.adamic_adar_index(graph, sorted(pairs))
        links = [Link(one, other, round(score, 5)) for one, other, score in scored]
        return sorted(links, key=lambda link: (-link.score, link.first, link.second))[:top]


def build(edges: list[tuple[str, str, float]], directed: bool) -> nx.Graph:
    """A graph of these edges; the weights of an edge that is named twice are added."""
    if not edges or len(edges) > EDGES_MAX:
        raise ValueError(f"a network has 1 to {EDGES_MAX} edges, this has {len(edges)}")
    graph: nx.Graph = nx.DiGraph() if directed else nx.Graph()
    for first, second, weight in edges:
        if not 0 < weight < 1e12:
            raise ValueError(f"the weight of {first[:30]} to {second[:30]} is not above 0")
        if graph.has_edge(first, second):
            graph[first][second]["weight"] += weight
        else:
            graph.add_edge(first, second, weight=weight)
    return graph
