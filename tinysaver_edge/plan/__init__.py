"""Plan a fleet: how many hosts, how much uplink, for so many cameras with a bundle.

fleet       what there is: cameras, uplink, hosts, times as bench measured them; limits
escalating  which frames are escalated, and in what bursts: from a trace, from epochs, or assumed
exchange    devices, uplink, hosts and deadlines, event by event
simulation  the fleet at work for a stretch of time; figures of many; a formula beside them
forecast    figures with their intervals, what keeps the limits, what-if curves
page        all of it as people read it, and as one file
"""
