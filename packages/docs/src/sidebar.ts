/** The sidebar of the site, read from the list of pages in docs/README.md. Pure. */
import { posix } from "node:path"
import { pageOf } from "./links.ts"

/** A group of links of the sidebar. */
export interface SidebarGroup {
  readonly text: string
  readonly items: ReadonlyArray<{ readonly text: string; readonly link: string }>
}

const linkOf = (page: string): string => `/${page.replace(/\.md$/, "")}`

/** The groups below the heading "Pages": a bold line, then a list of links. */
export const sidebarOf = (readme: string): ReadonlyArray<SidebarGroup> =>
  readme
    .slice(readme.indexOf("\n## Pages\n"))
    .split(/^\*\*(?=[A-Z][a-z]+\*\*$)/m)
    .slice(1)
    .map((group) => ({
      text: group.slice(0, group.indexOf("**")),
      items: Array.from(group.matchAll(/^- \[([^\]]+)\]\(([^)#]+)\)/gm), ([, text, path]) => ({
        text: text!,
        link: linkOf(pageOf(posix.normalize(posix.join("docs", path!)))!)
      }))
    }))
