// How `changeset version` writes entries: the text as it is, without hashes, and without lines about dependencies, because all
// packages have the same version.

export const getReleaseLine = async ({ summary }) =>
  summary.startsWith("- ") ? summary : `- ${summary.replaceAll("\n", "\n  ")}`

export const getDependencyReleaseLine = async () => ""
