"""What a calibration measures: every model's outputs and times on the user's own data.

given_records  records that the user brings, in place of images
images         models measured on images, one after the other, and put together
independence   what is known of the samples before any model runs
prepare        a model brought into the form it will ship in
measuring      the models run over the images, most promising savers first
worker         who runs the models; here, a step at a time in a process of its own
ray_workers    the same on the nodes of a cluster
timing         how long the models take here; latencies are those from elsewhere
label_check    whether labels and answers speak of the same classes
own_answers    whether labels are a model's own answers, or a cascade's
"""
