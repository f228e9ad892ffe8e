FROM scratch
ADD pause /pause
ENTRYPOINT ["/pause"]
