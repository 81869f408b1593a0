/** The links of a page of Markdown: for the test of the pages, and for what is packed of them. */

export const withoutFences = (text: string): string => text.replaceAll(/^ *```[\s\S]*?^ *```$/gm, "")

/** The relative links, in Markdown's own syntax and in HTML, with their anchors. */
export const linksIn = (text: string): ReadonlyArray<string> => {
  const prose = withoutFences(text).replaceAll(/`[^`\n]*`/g, "")
  const found = prose.matchAll(/\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$|\b(?:src|srcset|href)="([^"\s]+)"/gm)
  return Array.from(found, ([, inline, reference, html]) => (inline ?? reference ?? html)!).filter(
    (link) => !/^[a-z]+:/.test(link)
  )
}
