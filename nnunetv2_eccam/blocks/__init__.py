"""The parts of EC-CaM-UNet, one module per part of the paper.

==========================  ==============================  =====================
module                      part of the paper               equation, figure
==========================  ==============================  =====================
``enhanced_convolution``    Enhanced Convolution, EC        III, Fig. 2a
``channel_correlation``     channel correlation, CC         eq. 5-7, Fig. 3b
``spatial_correlation``     spatial correlation, SC         eq. 8-9, Fig. 3a
``collaborative_attention`` Collaborative Attention, CoA    eq. 4, Fig. 2b
``multi_scale``             Multi-Scale, MuS                III.A.2, Fig. 2c
``coag_musfu``              CoAG-MuSFu, the deep fusion     eq. 10
``convolution``             the U-Net's plain convolution   III
==========================  ==============================  =====================

Every block is written once for any number of dimensions; the convolution operator decides.
"""
