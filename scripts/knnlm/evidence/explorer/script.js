// Shows what stands behind a token where it is chosen. Without it the links lead there.
(() => {
  document.documentElement.classList.add("scripted");
  const tokens = [...document.querySelectorAll("a.tok")];
  const panel = document.getElementById("panel");
  let current = null;
  const choose = (link) => {
    if (current) {
      current.removeAttribute("aria-current");
      document.getElementById(current.hash.slice(1)).classList.remove("shown");
    }
    current = link;
    link.setAttribute("aria-current", "true");
    document.getElementById(link.hash.slice(1)).classList.add("shown");
    panel.scrollTop = 0;
  };
  panel.setAttribute("aria-live", "polite");
  tokens.forEach((link, place) => {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      choose(link);
    });
    link.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step && tokens[place + step];
      if (!next) return;
      event.preventDefault();
      next.focus();
      choose(next);
    });
  });
  const asked = location.hash && tokens.find((link) => link.hash === location.hash);
  if (asked) choose(asked);
})();
