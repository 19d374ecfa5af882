"""Issues of other programs in and out: what they say is kept, also where no field of ours can hold it."""
