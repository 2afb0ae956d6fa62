"""What comes in: VGG-16, KITTI's pictures and labels, the demo's scenes."""
