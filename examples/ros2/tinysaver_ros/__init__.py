"""Images in, classifications out: tinysaver-edge as a ROS 2 node."""
