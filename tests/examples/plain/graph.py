"""Zachary's karate club by NetworkX itself."""

import networkx as nx
from timing import told

club = nx.Graph((str(a), str(b), {"weight": 1.0}) for a, b in nx.karate_club_graph().edges)


def analysis() -> dict[str, object]:
    """Groups and ranks."""
    groups = nx.community.louvain_communities(club, seed=0)
    ranks = nx.pagerank(club)
    between = nx.betweenness_centrality(club)
    best = sorted(club, key=lambda node: (-ranks[node], node))[:3]
    return {
        "modularity": nx.community.modularity(club, groups),
        "communities": sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group)),
        "central": [{"node": node, "pagerank": ranks[node], "betweenness": between[node]} for node in best],
    }


told("analyse", {"edges": [[a, b, 1.0] for a, b in club.edges], "top": 3}, analysis)
