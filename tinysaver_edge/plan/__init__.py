"""Plan a fleet: how many hosts, how much uplink, for so many cameras with a bundle.

fleet       what there is: cameras, uplink, hosts, times as bench measured them; limits; a formula
escalating  which frames are escalated, and in what bursts: from a trace, from epochs, or assumed
simulation  the fleet at work, event by event: devices, uplink, hosts, deadlines
forecast    figures with their intervals, what keeps the limits, what-if curves
page        all of it as people read it, and as one file
"""
