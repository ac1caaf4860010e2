"""Sinks: where decisions go besides the program that asks for them.

base          the contract `Sink`, a function as one, those of other packages, and what a source
              shows, told once it holds still
queued        a bounded queue and a thread around any sink, so that none stalls the stream
jsonl         rotating JSON lines
video         pictures with their answers on them, as a video or in a window
mqtt          a broker
saved_frames  hard frames, and the next calibration set; pictures is the folder they lie in
forward       hard and audited frames, on disk through an outage and sent on later
"""
