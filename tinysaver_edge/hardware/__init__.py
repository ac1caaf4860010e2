"""What a device is and how fast it is: probe, profiles, doctor and benchmark."""
