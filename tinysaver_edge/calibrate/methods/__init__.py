"""How a threshold is proposed and certified; numpy and scipy only."""
