"""Frames at random moments of a period, into a folder that `calibrate` reads.

draw        which moments: uniform and independent
store       the folder: pictures, what was drawn, what became of it; whole after any kill
epochs      whole stretches in place of single frames
cameras     sources as they run: a frame, or an epoch, when its moment has come
recordings  videos that are there already, each frame weighing as long as it is shown

The files in the folder, and who believes them: `tinysaver_edge.data.collection`.
"""
