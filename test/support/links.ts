/** The links of a Markdown page, for the tests of the documentation and of the packages. */

export const withoutFences = (text: string): string => text.replaceAll(/^ *```[\s\S]*?^ *```$/gm, "")

/** The relative links in Markdown and HTML syntax, with their anchors. */
export const linksIn = (text: string): ReadonlyArray<string> => {
  const prose = withoutFences(text).replaceAll(/`[^`\n]*`/g, "")
  const found = prose.matchAll(/\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$|\b(?:src|srcset|href)="([^"\s]+)"/gm)
  return Array.from(found, ([, inline, reference, html]) => (inline ?? reference ?? html)!).filter(
    (link) => !/^[a-z]+:/.test(link)
  )
}
