// A browser breaks lines behind every hyphen, also within --split. In code a word stays whole where it fits on a line.
const longest = 40;

function keepWhole(code) {
  const texts = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) found.push(texts.currentNode);
  for (const text of found) {
    const parts = text.data.split(/(\s+)/);
    if (!parts.some((part) => part.includes("-"))) continue;
    text.replaceWith(
      ...parts.map((part) => {
        if (!part.includes("-") || part.length > longest) return part;
        const whole = document.createElement("span");
        whole.className = "whole";
        whole.textContent = part;
        return whole;
      }),
    );
  }
}

document.querySelectorAll(".md-typeset :not(pre) > code, .md-typeset .language-console pre > code").forEach(keepWhole);

// What a command prints is wrapped, too, unless it has columns, which scroll.
for (const pre of document.querySelectorAll(".md-typeset .language-text pre")) {
  if (!/[\u2500-\u257f|]|\S {2,}\S/.test(pre.textContent)) pre.classList.add("wraps");
}
