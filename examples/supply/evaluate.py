"""Measures supply: how often the real need of a lead time stayed within the reorder point, asked for 95 %."""

import json
import sys
from pathlib import Path

import numpy as np
from river.datasets import AirlinePassengers, WaterFlow

sys.path.insert(0, str(Path(__file__).parent))
from service import Supply


def held(need: list[float], lead: int, season: int, starts: range) -> tuple[float, float]:
    """The share of starts without a shortage, and the safety stock as a share of the expected need."""
    fine, spare = [], []
    for start in starts:
        plan = Supply().plan(need[:start], lead, on_hand=0.0, season=season)
        fine.append(sum(need[start : start + lead]) <= plan.reorder_point)
        spare.append(plan.safety_stock / plan.expected_need)
    return float(np.mean(fine)), float(np.mean(spare))


def main() -> None:
    """Print the figures as JSON."""
    seats = [float(value) for _, value in AirlinePassengers()]
    water = [float(value) for _, value in WaterFlow()]
    by_seats = held(seats, 2, 12, range(84, 142))
    by_water = held(water, 6, 24, range(400, 1_260, 20))
    print(
        json.dumps(
            {
                "headline": f"95 % asked: no shortage in {by_seats[0]:.0%} (airline seats) and {by_water[0]:.0%} (water) of past starts",
                "set": "airline passengers (58 starts, lead of 2 months) and hourly water flow (43 starts, lead of 6 hours), both by river",
                "figures": {
                    "seats_held": round(by_seats[0], 3),
                    "seats_safety_share": round(by_seats[1], 3),
                    "water_held": round(by_water[0], 3),
                    "water_safety_share": round(by_water[1], 3),
                },
            }
        )
    )


main()
