"""The ROS 2 node: translates messages, forwards them to the core and publishes the answers."""
