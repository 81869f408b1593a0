/** The boundaries of histograms of waits, in seconds: from a hundredth of a second to ten minutes. */
export const waitBoundaries = [0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600]
